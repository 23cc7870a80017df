package model

import "testing"

// TestCollect explores the collection protocol as it is built.
func TestCollect(t *testing.T) {
	t.Parallel()
	holds(t, collect{bounds: collectBounds{epochs: 2, extents: 2, incs: 2}}, collectSteps...)
	if !testing.Short() {
		holds(t, collect{bounds: collectBounds{epochs: 4, extents: 2, incs: 2, moves: true}}, moveSteps...)
		holds(t, collect{bounds: collectBounds{epochs: 4, extents: 1, moves: true}}, moveSteps...)
		holds(t, collect{bounds: collectBounds{epochs: 3, extents: 1}}, collectSteps...)
	}
}

// collectSteps are those that must occur.
var collectSteps = []string{
	"opens", "writes the extent", "uploads", "commits the ADD", "releases", "is durable", "drops the owner entries",
	"forgets", "writes what it owes", "raises its mark", "in no owner list", "raises the mark of chain", "is deleted",
	"the leader of epoch %d sweeps", "the sweeper deletes", "is sealed",
}

var moveSteps = []string{"gets no answer", "arrives", "nothing came", "raises its mark", "raises the mark of chain", "is sealed"}

// TestCollectGuards takes the guards of the collection protocol away, one at a
// time.
func TestCollectGuards(t *testing.T) {
	t.Parallel()
	const (
		extent  = "an extent is deleted"
		segment = "a segment is deleted"
		chain   = "a chain is taken for inherited"
	)
	two, three := collectBounds{epochs: 2, extents: 2, incs: 2}, collectBounds{epochs: 3, extents: 2}
	moves := collectBounds{epochs: 4, extents: 1, incs: 2, moves: true}
	tests := map[string]struct {
		rules  collectRules
		bounds collectBounds
		want   string
	}{
		"uploaded segments count":               {collectRules{trimsUploaded: true}, two, extent},
		"the mark passes what is not tiered":    {collectRules{trimsBehind: true}, two, extent},
		"what was released is not held":         {collectRules{ignoresReleased: true}, two, extent},
		"debts are not read":                    {collectRules{ignoresDebts: true}, two, extent},
		"a release is forgotten too early":      {collectRules{forgetsWhenOpened: true}, two, extent},
		"owner entries go before the debts":     {collectRules{trimsOwnersUnowed: true}, two, extent},
		"a listed chain is collected":           {collectRules{collectsListed: true}, two, chain},
		"ends are read after the owner lists":   {collectRules{endsLast: true}, three, chain},
		"an equal debt is not written again":    {collectRules{skipsSame: true}, moves, extent},
		"a lost answer changes no belief":       {collectRules{believesOld: true}, moves, extent},
		"what comes while debts are read":       {collectRules{looksOnce: true}, moves, extent},
		"debts are read before the owner lists": {collectRules{debtsFirst: true}, two, extent},
		"debts of a sealed chain go at once":    {collectRules{dropsDebtsSealed: true}, three, extent},
		"a late debt replaces a newer one":      {collectRules{latePays: true}, moves, extent},
		"segments of the own epoch are swept":   {collectRules{sweepsOwnEpoch: true}, two, segment},
		"segments of a living writer are swept": {collectRules{sweepsUnsealed: true}, two, segment},
		"manifests are read before the listing": {collectRules{namesFirst: true}, two, segment},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			breaks(t, collect{test.rules, test.bounds}, test.want)
		})
	}
}
