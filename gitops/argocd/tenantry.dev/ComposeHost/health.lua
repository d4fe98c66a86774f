-- How Argo CD shows a ComposeHost: one that is asked in vain is Progressing, one that can't work is Degraded.
local hs = {status = "Progressing", message = "No operator has looked at this spec yet."}
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return hs
end
for _, condition in ipairs(obj.status.conditions or {}) do
  if condition.type == "Ready" then
    hs.message = condition.message
    if condition.status == "True" then
      hs.status = "Healthy"
    elseif condition.status == "False" then
      hs.status = "Degraded"
    end
  end
end
return hs
