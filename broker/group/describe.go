package group

// Description is a group as administrators see it.
type Description struct {
	State        State
	Generation   int32
	ProtocolType string
	// Protocol and the members' metadata are told of a stable group only.
	Protocol string
	Members  []MemberDescription
}

// MemberDescription is a member as administrators see it.
type MemberDescription struct {
	ID         string
	Instance   *string
	ClientID   string
	ClientHost string
	Metadata   []byte
	Assignment []byte
}

// Describe describes the group.
func (g *Group) Describe() Description {
	d := Description{State: g.state, Generation: g.generation, ProtocolType: g.protocolType}
	stable := g.state == Stable && g.protocol != nil
	if stable {
		d.Protocol = *g.protocol
	}
	for _, m := range g.order {
		md := MemberDescription{
			ID: m.id, Instance: m.instance, ClientID: m.clientID, ClientHost: m.clientHost,
			Assignment: m.assignment,
		}
		if stable {
			md.Metadata = m.metadata(d.Protocol)
		}
		d.Members = append(d.Members, md)
	}
	return d
}
