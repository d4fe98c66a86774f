-- How Argo CD shows a Tenant: from its conditions, for the spec as it is now.
local hs = {status = "Progressing", message = "No operator has looked at this spec yet."}
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return hs
end
local conditions = {}
for _, condition in ipairs(obj.status.conditions or {}) do
  conditions[condition.type] = condition
end
local ready = conditions.Ready
if ready == nil then
  return hs
end
hs.message = ready.message
if obj.status.phase == "Suspended" then
  hs.status = "Suspended"
elseif conditions.Stalled ~= nil and conditions.Stalled.status == "True" then
  hs.status = "Degraded"
elseif conditions.Reconciling ~= nil and conditions.Reconciling.status == "True" then
  hs.status = "Progressing"
elseif ready.status == "True" then
  hs.status = "Healthy"
elseif ready.status == "False" then
  hs.status = "Degraded"
end
return hs
