package checker

import "fmt"

// Fault is something a test does to the servers, from its beginning to its end.
type Fault struct{ *Call }

// Fault tells that a fault begins: its kind, whom it hits, and whether the cluster
// must go on meanwhile (Minority) or may stop (Majority, All).
func (h *History) Fault(kind, scope string, targets ...string) Fault {
	return Fault{h.invoke(Event{Proc: "nemesis", F: FFault, Fault: kind, Scope: scope, Target: targets})}
}

// End tells that the fault is over: the process was started or resumed, the link
// was mended.
func (f Fault) End() { f.complete(OK, "", nil, nil) }

// Heal tells that every fault that began is over, and the cluster has to
// come back to life from now on.
func (h *History) Heal() { h.Add(Event{Proc: "nemesis", Type: OK, F: FHeal}) }

// Note adds a line for people to read; nothing judges it.
func (h *History) Note(format string, args ...any) {
	h.Add(Event{Type: OK, F: FNote, Err: fmt.Sprintf(format, args...)})
}
