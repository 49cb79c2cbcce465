-- One request: a `gemctl run --json --stream`, whose lines are the events of the API.

local M = {}

---@class GemdHandlers
---@field event fun(kind: string, content: table) an event of the API, or `error`
---@field log fun(line: string) what gemctl says on stderr, such as the progress of a download
---@field exit fun(code: integer) the end; nothing comes after it

-- What comes is cut anywhere; `take` is given whole lines.
local function lines_to(take)
  local rest = ""
  return function(_, pieces)
    pieces[1] = rest .. pieces[1]
    rest = table.remove(pieces)
    for _, line in ipairs(pieces) do
      take(line)
    end
  end
end

--- Start a request.
---@param argv string[] command and arguments
---@param prompt string goes to its standard input
---@param handlers GemdHandlers
---@return integer? job for `M.stop`
---@return string? why there is none
function M.start(argv, prompt, handlers)
  if vim.fn.executable(argv[1]) == 0 then
    return nil, argv[1] .. " is not on the PATH; setup({ command = { \"/path/to/gemctl\" } }) names it"
  end
  local job = vim.fn.jobstart(argv, {
    -- A download or a load is told of on stderr, in lines for people.
    env = { NO_COLOR = "1" },
    on_stdout = lines_to(function(line)
      local ok, document = pcall(vim.fn.json_decode, line)
      if ok and type(document) == "table" then
        local kind, content = next(document)
        handlers.event(kind, content)
      end
    end),
    on_stderr = lines_to(function(line)
      handlers.log((line:gsub("\r", "")))
    end),
    on_exit = function(_, code)
      handlers.exit(code)
    end,
  })
  if job <= 0 then
    return nil, argv[1] .. " could not be started"
  end
  vim.fn.chansend(job, prompt)
  vim.fn.chanclose(job, "stdin")
  return job
end

--- Cancel a request: gemctl ends, and with it the call to the daemon.
---@param job integer
function M.stop(job)
  vim.fn.jobstop(job)
end

return M
