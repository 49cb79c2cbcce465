-- Local models in the buffer, through gemctl. See :help gemd.

local Answer = require("gemd.answer")
local View = require("gemd.view")
local job = require("gemd.job")

local M = {}

M.options = {
  command = { "gemctl" }, -- with leading arguments, if any
  model = nil, -- nil: the daemon chooses
  arguments = {}, -- further ones of `gemctl run`, such as { "--mode", "fast" }
  context_lines = 200, -- what GemdComplete reads before the cursor
  complete_tokens = 128, -- the most that GemdComplete writes
}

-- Running requests by job.
local running = {}

---@param options table? those of `M.options` that shall differ
function M.setup(options)
  M.options = vim.tbl_deep_extend("force", M.options, options or {})
  if type(M.options.command) == "string" then
    M.options.command = { M.options.command }
  end
end

local function tell(message, level)
  vim.notify("gemd: " .. message, level or vim.log.levels.ERROR)
end

local function explain(content)
  local lines = { content.message }
  if content.why ~= "" then
    table.insert(lines, "  why: " .. content.why)
  end
  for _, each in ipairs(content.advice) do
    table.insert(lines, "  try: " .. each)
  end
  return table.concat(lines, "\n")
end

-- The error at the end of what gemctl said on stderr, if there is one.
local function last_words(log)
  for at = #log, 1, -1 do
    if log[at]:find("^error:") then
      return table.concat(log, "\n", at)
    end
  end
  return nil
end

-- Command line of a request; the prompt comes from standard input.
local function argv(more)
  local options = M.options
  local line = vim.list_extend({}, options.command)
  vim.list_extend(line, { "run", "--json", "--stream" })
  if options.model then
    vim.list_extend(line, { "--model", options.model })
  end
  vim.list_extend(line, options.arguments)
  vim.list_extend(line, more or {})
  return vim.list_extend(line, { "-" })
end

local function cancel(one)
  one.stopped = true
  job.stop(one.job)
end

-- Start a request that writes to `view`. `call` may have: `arguments`; `first`, before its first
-- text is written; `done(answer)`, after its last, and only if it came to its end.
local function request(view, prompt, call)
  local answer, failure, log = Answer.new(), nil, {}
  local one = { view = view, answer = answer }

  local function show()
    if answer.text == "" and answer:provisional() == "" then
      view:show(answer.status .. " …")
    else
      view:show(answer:provisional())
    end
    vim.cmd("redrawstatus!")
  end

  local function event(kind, content)
    if not view:alive() then
      return job.stop(one.job)
    end
    if kind == "error" then
      failure = content
      return
    end
    if view:taken_back() then
      return cancel(one)
    end
    local begins = answer.text == ""
    local text = answer:add(kind, content)
    if text then
      local ok, why = pcall(function()
        if begins and call.first then
          call.first()
        end
        view:write(text)
      end)
      if not ok then
        -- As where the buffer was made unmodifiable since; each further piece would fail too.
        failure = failure or { message = "the answer cannot be written here", why = why, advice = {} }
        return job.stop(one.job)
      end
    end
    show()
  end

  local function exit(code)
    running[one.job] = nil
    -- With the buffer it is gone already.
    pcall(vim.api.nvim_del_autocmd, one.closing)
    if view:alive() then
      view:show("")
      if code == 0 and call.done and not failure then
        call.done(answer)
      end
      view:close()
    end
    vim.cmd("redrawstatus!")
    if one.stopped then
      tell("cancelled", vim.log.levels.INFO)
    elseif failure then
      tell(explain(failure))
    elseif code ~= 0 then
      tell(last_words(log) or ("gemctl ended with " .. code))
    end
  end

  local why
  one.job, why = job.start(argv(call.arguments), prompt, {
    event = event,
    exit = exit,
    log = function(line)
      if line ~= "" then
        table.insert(log, line)
        if answer.text == "" and view:alive() then
          answer.status = line
          show()
        end
      end
    end,
  })
  if not one.job then
    view:close()
    return tell(why)
  end
  running[one.job] = one
  one.closing = vim.api.nvim_create_autocmd("BufUnload", {
    buffer = view.buffer,
    callback = function()
      cancel(one)
    end,
  })
  show()
  return one
end

local function lines_of(buffer, first, last)
  return table.concat(vim.api.nvim_buf_get_lines(buffer, first - 1, last, true), "\n")
end

local function writable(buffer)
  if not vim.api.nvim_buf_get_option(buffer, "modifiable") then
    tell("this buffer cannot be changed")
    return false
  end
  return true
end

--- Ask, and write the answer into a buffer of its own in a split.
---@param prompt string
---@param range integer[]? first and last line, from 1, that the question is about
function M.ask(prompt, range)
  local question = prompt
  if range then
    local about = lines_of(0, range[1], range[2])
    question = prompt .. "\n\n```" .. vim.bo.filetype .. "\n" .. about .. "\n```"
  end
  vim.cmd("botright new")
  local buffer = vim.api.nvim_get_current_buf()
  vim.bo.buftype, vim.bo.bufhidden, vim.bo.swapfile = "nofile", "hide", false
  vim.bo.filetype = "markdown"
  vim.wo.wrap, vim.wo.linebreak = true, true
  vim.api.nvim_buf_set_lines(buffer, 0, -1, true, { "# " .. prompt:gsub("\n", " "), "", "" })
  vim.keymap.set("n", "<C-c>", M.stop, { buffer = buffer, desc = "Cancel the answer" })
  return request(View.new(buffer, 2, 0), question, {})
end

-- An answer that is one fenced block is what stands in it.
local function without_fence(text)
  local inner = text:match("^%s*```[^\n]*\n(.*)\n```%s*$")
  return inner or text:match("^%s*\n(.*)$") or text
end

local REPLACE = [[
%s

Answer with the new text alone, without an explanation.

%s]]

--- Replace lines by what the model makes of them. They stay until its first word comes.
---@param instruction string
---@param first integer line, from 1
---@param last integer line, from 1
function M.replace(instruction, first, last)
  local buffer = vim.api.nvim_get_current_buf()
  if not writable(buffer) then
    return
  end
  local text = lines_of(buffer, first, last)
  local ending = #vim.api.nvim_buf_get_lines(buffer, last - 1, last, true)[1]
  local space = vim.api.nvim_create_namespace("gemd_replace")
  -- The lines themselves, wherever they are by then: the left end stays, the right one grows.
  local region = vim.api.nvim_buf_set_extmark(buffer, space, first - 1, 0, {
    end_row = last - 1,
    end_col = ending,
    right_gravity = false,
    end_right_gravity = true,
  })
  local view = View.new(buffer, last - 1, ending)

  local function put(lines)
    local found = vim.api.nvim_buf_get_extmark_by_id(buffer, space, region, { details = true })
    view:change(function()
      vim.api.nvim_buf_set_text(buffer, found[1], found[2], found[3].end_row, found[3].end_col, lines)
    end)
  end

  return request(view, REPLACE:format(instruction, text), {
    first = function()
      put({ "" })
    end,
    done = function(answer)
      local inner = without_fence(answer.text)
      if inner ~= answer.text then
        put(vim.split(inner, "\n", { plain = true }))
      end
    end,
  })
end

--- Go on with the text before the cursor, there.
function M.complete()
  local buffer = vim.api.nvim_get_current_buf()
  if not writable(buffer) then
    return
  end
  local cursor = vim.api.nvim_win_get_cursor(0)
  local row, column = cursor[1], cursor[2]
  local line = vim.api.nvim_get_current_line()
  -- In normal mode the cursor stands on a character and the text goes on behind it.
  if line ~= "" and vim.fn.mode():sub(1, 1) ~= "i" then
    column = column + #vim.fn.matchstr(line:sub(column + 1), "^.")
  end
  local first = math.max(row - M.options.context_lines, 1)
  local before = row > first and lines_of(buffer, first, row - 1) .. "\n" or ""
  before = before .. line:sub(1, column)
  if not before:find("%S") then
    return tell("there is no text before the cursor")
  end
  local view = View.new(buffer, row - 1, column)
  local tokens = tostring(M.options.complete_tokens)
  return request(view, before, {
    arguments = { "--raw", "--max-tokens", tokens },
  })
end

--- Cancel the answers that are written to this buffer, or all if there are none.
function M.stop()
  local here, all = {}, {}
  for _, one in pairs(running) do
    table.insert(all, one)
    if one.view.buffer == vim.api.nvim_get_current_buf() then
      table.insert(here, one)
    end
  end
  for _, one in ipairs(#here > 0 and here or all) do
    cancel(one)
  end
end

--- What goes on, for a statusline; empty if nothing does.
---@return string
function M.status()
  local found = {}
  for _, one in pairs(running) do
    table.insert(found, one.answer.status)
  end
  table.sort(found)
  return #found > 0 and "gemd: " .. table.concat(found, ", ") or ""
end

return M
