-- The place in a buffer where an answer is written. It moves with the text around it.

local M = {}
M.__index = M

local space = vim.api.nvim_create_namespace("gemd")
vim.api.nvim_set_hl(0, "GemdDraft", { link = "Comment", default = true })

-- End the step of undo of what was changed before: setting this option does, whatever it is set to.
local function end_step()
  vim.cmd("noautocmd let &l:undolevels = &l:undolevels")
end

--- A place in a buffer.
---@param buffer integer
---@param row integer from 0
---@param column integer in bytes, from 0
function M.new(buffer, row, column)
  local self = setmetatable({ buffer = buffer, shown = "" }, M)
  self.mark = vim.api.nvim_buf_set_extmark(buffer, space, row, column, {})
  return self
end

--- Whether there is still a place to write to; a buffer that is closed or read again has none.
function M:alive()
  return vim.api.nvim_buf_is_loaded(self.buffer) and self:position() ~= nil
end

--- Where the next text goes.
---@return integer row from 0
---@return integer column in bytes, from 0
function M:position()
  local found = vim.api.nvim_buf_get_extmark_by_id(self.buffer, space, self.mark, {})
  return found[1], found[2]
end

--- Whether the user has undone what was written here: what follows it has no place any more.
function M:taken_back()
  return self.number ~= nil and vim.api.nvim_buf_call(self.buffer, vim.fn.changenr) < self.number
end

--- Change the buffer. All changes of one answer are one step of undo, unless something else was
--- changed in between: that is not to be undone with it.
---@param change fun()
function M:change(change)
  vim.api.nvim_buf_call(self.buffer, function()
    if self.tick == vim.api.nvim_buf_get_changedtick(self.buffer) then
      -- It refuses after an undo, which is right: a new step begins.
      pcall(vim.cmd, "undojoin")
    else
      end_step()
    end
    change()
    end_step()
    self.number = vim.fn.changenr()
  end)
  self.tick = vim.api.nvim_buf_get_changedtick(self.buffer)
end

--- Write text that stays.
---@param text string
function M:write(text)
  local row, column = self:position()
  self:change(function()
    local lines = vim.split(text, "\n", { plain = true })
    vim.api.nvim_buf_set_text(self.buffer, row, column, row, column, lines)
  end)
end

--- Show text behind the place that is not part of the buffer: a draft, or what goes on.
---@param text string empty takes it away
function M:show(text)
  if text == self.shown then
    return
  end
  self.shown = text
  local row, column = self:position()
  local options = { id = self.mark }
  if text ~= "" then
    options.virt_lines = vim.tbl_map(function(line)
      return { { line, "GemdDraft" } }
    end, vim.split(text, "\n", { plain = true }))
  end
  vim.api.nvim_buf_set_extmark(self.buffer, space, row, column, options)
end

--- Nothing more is written here.
function M:close()
  if self:alive() then
    vim.api.nvim_buf_del_extmark(self.buffer, space, self.mark)
  end
end

return M
