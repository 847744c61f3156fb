-- Takes the names by which workers prove who they are out of the list of models.
-- What is not as engines write it (no length, too long, no such list) passes as it is.

local MOST_BYTES = 262144

-- The end of the value that begins at `from`, an object with whatever it holds.
local function object_end(text, from)
  local depth, at = 0, from
  while true do
    at = text:find('[{}"]', at)
    if not at then return nil end
    local found = text:sub(at, at)
    if found == '"' then
      repeat
        at = text:find('["\\]', at + 1)
        if not at then return nil end
        local escaped = text:sub(at, at) == '\\'
        if escaped then at = at + 1 end
      until not escaped
    elseif found == '{' then
      depth = depth + 1
    else
      depth = depth - 1
      if depth == 0 then return at end
    end
    at = at + 1
  end
end

local function without_identity(text)
  local _, list = text:find('"data"%s*:%s*%[')
  if not list then return text end
  local kept, at = {}, list + 1
  while true do
    local first = text:find('%S', at)
    if not first or text:sub(first, first) ~= '{' then return text end
    local last = object_end(text, first)
    if not last then return text end
    local entry = text:sub(first, last)
    if not entry:find('"id"%s*:%s*"@IDENTITY@') then table.insert(kept, entry) end
    local following = text:find('%S', last + 1)
    if not following then return text end
    local mark = text:sub(following, following)
    if mark == ']' then
      return text:sub(1, list) .. table.concat(kept, ',') .. text:sub(following)
    elseif mark ~= ',' then
      return text
    end
    at = following + 1
  end
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local length = tonumber(headers:get('content-length') or '')
  if headers:get(':status') ~= '200' or headers:get('content-encoding') then return end
  if not length or length == 0 or length > MOST_BYTES then return end
  local body = handle:body()
  local text = body:getBytes(0, body:length())
  local shown = without_identity(text)
  if shown ~= text then
    headers:replace('content-length', tostring(body:setBytes(shown)))
  end
end
