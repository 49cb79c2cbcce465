-- What can be shown of an answer that is still being drafted, checked or written.

local M = {}
M.__index = M

function M.new()
  return setmetatable({ text = "", draft = "", rest = nil, status = "asking" }, M)
end

--- What a draft has beyond the answer: it goes away, or becomes part of the answer.
function M:provisional()
  return self.rest or self.draft
end

local function loading(content)
  local total, model = content.total, content.model:gsub("^models/", "")
  local share = total > 0 and string.format(" %d %%", math.floor(100 * content.current / total)) or ""
  return "loading " .. model .. share
end

--- Take one more event into account.
---@param kind string
---@param content table
---@return string? text new text of the answer
function M:add(kind, content)
  if kind == "queued" then
    self.status = "waiting, place " .. content.position
  elseif kind == "loading" then
    self.status = loading(content)
  elseif kind == "started" then
    self.status = "reading"
  elseif kind == "draft" then
    self.draft = self.draft .. content.text
    self.status = "drafting"
  elseif kind == "resolved" then
    local kept = content.resolution == "RESOLUTION_KEPT"
    -- Strings of Lua are bytes, and so is what the daemon counts.
    self.rest = kept and self.draft or self.draft:sub(1, content.kept_bytes)
  elseif kind == "delta" and content.text ~= "" then
    local rest, text = self:provisional(), content.text
    if rest ~= "" then
      self.rest = rest:sub(1, #text) == text and rest:sub(#text + 1) or ""
    end
    self.text = self.text .. text
    self.status = "writing"
    return text
  elseif kind == "delta" and content.reasoning_text ~= "" then
    self.status = "thinking"
  end
  return nil
end

return M
