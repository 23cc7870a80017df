package model

import "testing"

// TestChain explores the chain protocol as it is built.
func TestChain(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		short, full chainBounds
		steps       []string
	}{
		"writes": {
			chainBounds{slots: 2, window: 2},
			chainBounds{slots: 4, window: 3},
			[]string{"sends CLOSE", "acknowledges", "something else", "sees a fence", "sees CLOSE",
				"fence void", "end recorded", "checkpoint at", "heirs hold", "is deleted"},
		},
		"copied writer": {
			chainBounds{slots: 2, window: 2, clone: true},
			chainBounds{slots: 3, window: 2, clone: true},
			[]string{"a copy's bytes", "something else"},
		},
		"readers": {
			chainBounds{slots: 2, window: 1, reads: true},
			chainBounds{slots: 4, window: 2, reads: true},
			[]string{"tries slot", "check goes past", "check finds something else", "comes past CLOSE", "heirs hold", "is deleted"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			bounds := test.full
			if testing.Short() {
				bounds = test.short
			}
			holds(t, chain{bounds: bounds}, test.steps...)
		})
	}
}

// TestChainGuards takes the guards of the chain protocol away, one at a time.
func TestChainGuards(t *testing.T) {
	t.Parallel()
	const (
		beyond  = "an acknowledged slot lies beyond the end"
		missing = "a slot below the end is missing"
		changed = "an acknowledged slot holds other bytes"
		twoEnds = "sealers disagree"
		deposed = "a deposed leader"
	)
	writes := chainBounds{slots: 2, window: 2}
	copied, readers := writes, writes
	copied.clone, readers.reads = true, true
	tests := map[string]struct {
		rules  chainRules
		bounds chainBounds
		want   string
	}{
		"acknowledged across a gap":                {chainRules{acksAcrossGaps: true}, writes, beyond},
		"412 taken for success":                    {chainRules{believes412: true}, copied, changed},
		"412 judged by the writer's name":          {chainRules{comparesWriter: true}, copied, changed},
		"data after CLOSE":                         {chainRules{goesOnAfterClose: true}, writes, beyond},
		"checkpoint ahead of the commit":           {chainRules{checkpointsUnacked: true}, writes, missing},
		"old checkpoint deleted first":             {chainRules{deletesCheckpoint: true}, writes, "checkpoint is missing"},
		"no fence":                                 {chainRules{trustsLease: true}, writes, beyond},
		"fence above the first gap":                {chainRules{fencesBeyond: true}, writes, beyond},
		"end above a gap":                          {chainRules{ignoresGaps: true}, writes, missing},
		"objects beyond a fence counted":           {chainRules{skipsFence: true}, writes, missing},
		"fence not checked against the trim mark":  {chainRules{believesFence: true}, writes, beyond},
		"fence deleted":                            {chainRules{deletesFences: true}, writes, beyond},
		"CLOSE deleted":                            {chainRules{deletesCloses: true}, copied, twoEnds},
		"deleted before the trim mark is recorded": {chainRules{deletesUntrimmed: true}, writes, beyond},
		"trim mark above the checkpoint":           {chainRules{trimsUnchecked: true}, writes, missing},
		"trim mark falls":                          {chainRules{markFalls: true}, writes, missing},
		"create-if-absent not atomic":              {chainRules{createRaces: true}, writes, missing},
		"a PUT proves leadership uncommitted":      {chainRules{provesEarly: true}, readers, deposed},
		"an own object found proves leadership":    {chainRules{proves412: true}, readers, deposed},
		"a check ends at an own object":            {chainRules{provesInSlot: true}, readers, deposed},
		"a check goes past the own CLOSE":          {chainRules{provesClosed: true}, readers, deposed},
		"heirs delete the newest slots":            {chainRules{heirsTakeAll: true}, readers, deposed},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			breaks(t, chain{rules: test.rules, bounds: test.bounds}, test.want)
		})
	}
}
