package model

import "testing"

// TestHandoff explores the hand-over protocol as it is built.
func TestHandoff(t *testing.T) {
	t.Parallel()
	bounds := []handoffBounds{{epochs: 3, appends: 2}, {epochs: 4, appends: 1}}
	if testing.Short() {
		bounds = []handoffBounds{{epochs: 3, appends: 1}}
	}
	for _, b := range bounds {
		holds(t, handoff{bounds: b}, handoffSteps...)
	}
}

// handoffSteps are those that must occur.
var handoffSteps = []string{
	"does not learn", "opens", "appends", "releases", "is durable", "sends a trim", "trim leaves", "forgets", "is sealed", "closes its chain",
}

// TestHandoffGuards takes the guards of the hand-over protocol away, one at a
// time.
func TestHandoffGuards(t *testing.T) {
	t.Parallel()
	const (
		apart = "cannot put the log together"
		lost  = "without an acknowledged record"
	)
	bounds := handoffBounds{epochs: 3, appends: 1}
	tests := map[string]struct {
		rules handoffRules
		want  string
	}{
		"the owner list trusted":                      {handoffRules{trustsOwnerList: true}, apart},
		"only the newest predecessor closed":          {handoffRules{closesNewestOnly: true}, apart},
		"the walk ends at an entry that never opened": {handoffRules{stopsAtUnopened: true}, lost},
		"appends after RELEASE":                       {handoffRules{appendsAfterRelease: true}, lost},
		"an epoch released unopened is opened":        {handoffRules{opensReleasedEpoch: true}, lost},
		"a RELEASE of another epoch closes":           {handoffRules{anyReleaseCloses: true}, apart},
		"an own old entry is led again":               {handoffRules{leadsReleasedEpoch: true}, lost},
		"a checkpoint forgets what was released":      {handoffRules{checkpointForgets: true}, lost},
		"forgotten before the successor is durable":   {handoffRules{forgetsWhenOpened: true}, apart},
		"owner list trimmed before it is durable":     {handoffRules{trimsBeforeDurable: true}, apart},
		"a late trim of an older claim":               {handoffRules{trimsByName: true}, lost},
		"a checkpoint recorded after the end":         {handoffRules{checkpointsAfterEnd: true}, apart},
		"CLOSE names a checkpoint made too early":     {handoffRules{closeBeforeDrained: true}, lost},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			breaks(t, handoff{test.rules, bounds}, test.want)
		})
	}
}
