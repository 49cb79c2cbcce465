-- :checkhealth gemd

local M = {}

-- Neovim 0.10 gave these functions their names.
local function reporter(new, old)
  return vim.health and vim.health[new] or vim.health and vim.health[old] or require("health")[old]
end

function M.check()
  local start, ok = reporter("start", "report_start"), reporter("ok", "report_ok")
  local failed = reporter("error", "report_error")
  local command = require("gemd").options.command
  local function gemctl(...)
    local argv = vim.list_extend(vim.list_extend({}, command), { ... })
    return vim.fn.system(argv), vim.v.shell_error
  end

  start("gemd")
  if vim.fn.executable(command[1]) == 0 then
    failed(command[1] .. " is not on the PATH", {
      "install gemd; its README says how",
      'require("gemd").setup({ command = { "/path/to/gemctl" } })',
    })
    return
  end
  local version, code = gemctl("--version")
  if code ~= 0 then
    failed("gemctl does not work: " .. version)
    return
  end
  ok(vim.trim(version))

  local help = gemctl("run", "--help")
  if not help:find("--stream", 1, true) then
    failed("this gemctl has no `run --stream`", { "install a newer gemd" })
    return
  end
  local said, down = gemctl("info", "--json")
  if down ~= 0 then
    ok("no daemon runs; the first request starts one")
    return
  end
  local decoded, info = pcall(vim.fn.json_decode, said)
  ok("the daemon answers" .. (decoded and info.socket and " at " .. info.socket or ""))
end

return M
