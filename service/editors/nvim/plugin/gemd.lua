-- The commands. Nothing else is loaded before one of them is used.

if vim.g.loaded_gemd then
  return
end
vim.g.loaded_gemd = 1

if vim.fn.has("nvim-0.7") == 0 then
  vim.notify("gemd needs Neovim 0.7 or newer", vim.log.levels.ERROR)
  return
end

local command = vim.api.nvim_create_user_command

command("Gemd", function(call)
  require("gemd").ask(call.args, call.range > 0 and { call.line1, call.line2 } or nil)
end, { nargs = "+", range = true, desc = "Ask a local model; with a range, about these lines" })

command("GemdReplace", function(call)
  require("gemd").replace(call.args, call.line1, call.line2)
end, { nargs = "+", range = true, desc = "Replace these lines as the instruction says" })

command("GemdComplete", function()
  require("gemd").complete()
end, { desc = "Go on with the text at the cursor" })

command("GemdStop", function()
  require("gemd").stop()
end, { desc = "Cancel the answers in this buffer, or all if it has none" })
