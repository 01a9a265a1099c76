# Made into bundle.tar.gz by OPA 1.22.2:
#   opa build -t wasm -e keyless/decision -e keyless/reads -e keyless/endless -e keyless/todo -o bundle.tar.gz policy.rego
package keyless

# What reads is for everybody; what writes for agents of low risk, one call at a time; grants for ten minutes.
default decision := {"allow": false}

decision := {"allow": true} if input.resource.properties.access == "read"

decision := {"allow": true, "obligations": [{"type": "single_use"}, {"type": "ttl", "value": 60}]} if {
	input.resource.properties.access == "write"
	input.subject.properties.risk_tier == "low"
}

decision := {"allow": true, "obligations": [{"type": "ttl", "value": 600}]} if input.action.name in {"mint", "delegate"}

# Without a default: undefined where it does not hold.
reads if input.resource.properties.access == "read"

# Never done in time.
endless if {
	some i in numbers.range(0, 3000)
	some j in numbers.range(0, 3000)
	some k in numbers.range(0, 3000)
	(i + j) + k == -1
}

# The todo application of the AuthZEN interoperability scenario (see ../authzen/todo.json).
default todo := {"decision": false}

todo := {"decision": true} if todo_allows

roles := {
	"CiRmZDA2MTRkMy1jMzlhLTQ3ODEtYjdiZC04Yjk2ZjVhNTEwMGQSBWxvY2Fs": {"id": "rick@the-citadel.com", "roles": ["admin", "evil_genius"]},
	"CiRmZDE2MTRkMy1jMzlhLTQ3ODEtYjdiZC04Yjk2ZjVhNTEwMGQSBWxvY2Fs": {"id": "morty@the-citadel.com", "roles": ["editor"]},
	"CiRmZDI2MTRkMy1jMzlhLTQ3ODEtYjdiZC04Yjk2ZjVhNTEwMGQSBWxvY2Fs": {"id": "summer@the-smiths.com", "roles": ["editor"]},
	"CiRmZDM2MTRkMy1jMzlhLTQ3ODEtYjdiZC04Yjk2ZjVhNTEwMGQSBWxvY2Fs": {"id": "beth@the-smiths.com", "roles": ["viewer"]},
	"CiRmZDQ2MTRkMy1jMzlhLTQ3ODEtYjdiZC04Yjk2ZjVhNTEwMGQSBWxvY2Fs": {"id": "jerry@the-smiths.com", "roles": ["viewer"]},
}

who := roles[input.subject.id]

todo_allows if {
	who
	input.action.name in {"can_read_user", "can_read_todos"}
}

todo_allows if {
	input.action.name == "can_create_todo"
	some role in who.roles
	role in {"admin", "editor"}
}

todo_allows if {
	input.action.name in {"can_update_todo", "can_delete_todo"}
	"editor" in who.roles
	input.resource.properties.ownerID == who.id
}

todo_allows if {
	input.action.name in {"can_update_todo", "can_delete_todo"}
	"admin" in who.roles
}
