package group

// supportsProtocols tells whether a joining member could work with the group: an
// empty one takes any, another one only its own type and a protocol that every
// member supports.
func (g *Group) supportsProtocols(protocolType string, protocols []Protocol) bool {
	if g.state == Empty {
		return protocolType != "" && len(protocols) > 0
	}
	if g.protocolType != protocolType {
		return false
	}
	for _, p := range protocols {
		if g.supported[p.Name] == len(g.members) {
			return true
		}
	}
	return false
}

// selectProtocol lets each member vote for the first of its protocols that all
// support. Kafka leaves ties open; here the longest-standing voter's choice wins.
func (g *Group) selectProtocol() *string {
	votes := map[string]int{}
	var ballots []string
	for _, m := range g.order {
		for _, p := range m.protocols {
			if g.supported[p.Name] == len(g.members) {
				votes[p.Name]++
				ballots = append(ballots, p.Name)
				break
			}
		}
	}
	var chosen *string
	for i := range ballots {
		if chosen == nil || votes[ballots[i]] > votes[*chosen] {
			chosen = &ballots[i]
		}
	}
	if chosen == nil {
		return nil
	}
	name := *chosen
	return &name
}

func sameProtocol(a, b *string) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// currentMembers is what the leader is told.
func (g *Group) currentMembers() []JoinedMember {
	members := make([]JoinedMember, 0, len(g.order))
	for _, m := range g.order {
		jm := JoinedMember{ID: m.id, Instance: m.instance}
		if g.protocol != nil {
			jm.Metadata = m.metadata(*g.protocol)
		}
		members = append(members, jm)
	}
	return members
}

// currentGeneration is the reply that tells m of the generation as it is.
func (g *Group) currentGeneration(m *member) JoinReply {
	r := JoinReply{
		MemberID: m.id, Generation: g.generation,
		ProtocolType: g.protocolTypeOrNil(), Protocol: g.protocol, Leader: g.leader,
	}
	if m.id == g.leader {
		r.Members = g.currentMembers()
	}
	return r
}
