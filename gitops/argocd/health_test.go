// Package argocd tries the health scripts as Argo CD runs them: by its Lua, with the same few libraries.
package argocd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	lua "github.com/yuin/gopher-lua"
)

// value makes of a decoded object what a script sees.
func value(state *lua.LState, from any) lua.LValue {
	switch from := from.(type) {
	case map[string]any:
		table := state.NewTable()
		for key, one := range from {
			table.RawSetString(key, value(state, one))
		}
		return table
	case []any:
		table := state.NewTable()
		for _, one := range from {
			table.Append(value(state, one))
		}
		return table
	case string:
		return lua.LString(from)
	case int:
		return lua.LNumber(from)
	case bool:
		return lua.LBool(from)
	}
	return lua.LNil
}

// health runs a kind's script. Argo CD opens these libraries and no other by default.
func health(t *testing.T, kind string, obj map[string]any) (status, message string) {
	t.Helper()
	script, err := os.ReadFile(filepath.Join("tenantry.dev", kind, "health.lua"))
	if err != nil {
		t.Fatal(err)
	}
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{{lua.LoadLibName, lua.OpenPackage}, {lua.BaseLibName, lua.OpenBase}, {lua.TabLibName, lua.OpenTable}} {
		call := lua.P{Fn: state.NewFunction(library.open), Protect: true}
		if err := state.CallByParam(call, lua.LString(library.name)); err != nil {
			t.Fatal(err)
		}
	}
	state.SetGlobal("obj", value(state, obj))
	if err := state.DoString(string(script)); err != nil {
		t.Fatal(err)
	}
	answer, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		t.Fatalf("%s: no table is returned", kind)
	}
	return lua.LVAsString(answer.RawGetString("status")), lua.LVAsString(answer.RawGetString("message"))
}

func object(generation, observed int, phase string, truths string) map[string]any {
	status := map[string]any{"observedGeneration": observed}
	if phase != "" {
		status["phase"] = phase
	}
	conditions := []any{map[string]any{"type": "HostReachable", "status": "False", "message": "another"}}
	for index, truth := range strings.Fields(truths) {
		kind := []string{"Ready", "Reconciling", "Stalled"}[index]
		conditions = append(conditions, map[string]any{"type": kind, "status": truth, "message": "of " + kind})
	}
	status["conditions"] = conditions
	return map[string]any{"metadata": map[string]any{"generation": generation}, "status": status}
}

func TestHealth(t *testing.T) {
	unseen := object(1, -1, "", "")
	delete(unseen["status"].(map[string]any), "conditions")
	bare := map[string]any{"metadata": map[string]any{"generation": 1}}
	for name, one := range map[string]struct {
		kind   string
		obj    map[string]any
		status string
	}{
		"a Tenant without a status":                {"Tenant", bare, "Progressing"},
		"a Tenant that nobody has looked at":       {"Tenant", unseen, "Progressing"},
		"a Tenant of an older spec":                {"Tenant", object(2, 1, "Ready", "True False False"), "Progressing"},
		"a Tenant whose host is not looked at yet": {"Tenant", object(1, 1, "Pending", "Unknown True False"), "Progressing"},
		"a Tenant in an upgrade":                   {"Tenant", object(1, 1, "Verifying", "False True False"), "Progressing"},
		"a Tenant at its target":                   {"Tenant", object(1, 1, "Ready", "True False False"), "Healthy"},
		"a Tenant that is not well":                {"Tenant", object(1, 1, "Degraded", "False False False"), "Degraded"},
		"a Tenant that was rolled back":            {"Tenant", object(1, 1, "RolledBack", "False False True"), "Degraded"},
		"a Tenant that was refused":                {"Tenant", object(1, 1, "Refused", "False False True"), "Degraded"},
		"a Tenant whose host does not answer":      {"Tenant", object(1, 1, "HostUnreachable", "Unknown True False"), "Progressing"},
		"a suspended Tenant":                       {"Tenant", object(1, 1, "Suspended", "True False False"), "Suspended"},
		"a suspended Tenant at another release":    {"Tenant", object(1, 1, "Suspended", "False False False"), "Suspended"},
		"a host without a status":                  {"ComposeHost", bare, "Progressing"},
		"a host that nobody has looked at":         {"ComposeHost", unseen, "Progressing"},
		"a host that answers":                      {"ComposeHost", object(1, 1, "", "True False False"), "Healthy"},
		"a host with a fault":                      {"ComposeHost", object(1, 1, "", "False True False"), "Degraded"},
		"a host that does not answer":              {"ComposeHost", object(1, 1, "", "Unknown True False"), "Progressing"},
		"a bundle without a status":                {"TemplateBundle", bare, "Progressing"},
		"a bundle that nobody has looked at":       {"TemplateBundle", unseen, "Progressing"},
		"a bundle that was understood":             {"TemplateBundle", object(1, 1, "", "True False False"), "Healthy"},
		"a bundle that can't be used":              {"TemplateBundle", object(1, 1, "", "False False True"), "Degraded"},
		"a bundle of an older spec":                {"TemplateBundle", object(2, 1, "", "True False False"), "Progressing"},
	} {
		t.Run(name, func(t *testing.T) {
			status, message := health(t, one.kind, one.obj)
			if status != one.status {
				t.Errorf("%s, not %s: %s", status, one.status, message)
			}
			told := message == "of Ready" || one.status == "Progressing" && message != ""
			if !told {
				t.Errorf("the message is %q", message)
			}
		})
	}
}
