package model

import "testing"

// TestTxn explores the transaction protocol as it is built: with an epoch for
// every transaction, and with one for all.
func TestTxn(t *testing.T) {
	t.Parallel()
	holds(t, txnProtocol{bounds: txnBounds{txns: 2, bumps: true}}, append(txnSteps, "took too long")...)
	holds(t, txnProtocol{bounds: txnBounds{txns: 1}}, txnSteps...)
	holds(t, txnProtocol{bounds: txnBounds{txns: 2, calm: true}}, txnSteps...)
}

// txnSteps are those that must occur.
var txnSteps = []string{
	"client sends", "client commits", "client aborts", "coordinator commits", "coordinator aborts", "sends a marker", "completes",
	"new owner", "asks about its batch", "told yes", "appends", "gets the COMMIT", "gets the ABORT",
}

// TestTxnGuards takes the guards of the transaction protocol away, one at a time.
func TestTxnGuards(t *testing.T) {
	t.Parallel()
	const (
		shown    = "a record is shown"
		hidden   = "a record is hidden"
		hangs    = "a transaction hangs"
		unwanted = "its client did not"
	)
	bumps, old, calm := txnBounds{txns: 2, bumps: true}, txnBounds{txns: 1}, txnBounds{txns: 2, calm: true}
	three := txnBounds{txns: 3, bumps: true}
	tests := map[string]struct {
		rules  txnRules
		bounds txnBounds
		want   string
	}{
		"nobody is asked":                        {txnRules{appendsUnverified: true}, bumps, hangs},
		"a marker voids nothing":                 {txnRules{guardStays: true}, old, hangs},
		"a late marker ends what is open":        {txnRules{lateMarkers: true}, bumps, hidden},
		"a marker of an older epoch":             {txnRules{oldMarkers: true}, three, hidden},
		"a marker of an older coordinator":       {txnRules{anyCoordinator: true}, calm, shown},
		"a late EndTxn":                          {txnRules{lateEnds: true}, bumps, unwanted},
		"complete before the markers are":        {txnRules{completesEarly: true}, bumps, hangs},
		"the new owner forgets what is prepared": {txnRules{forgetsPrepared: true}, bumps, hidden},
		"a deposed owner decides":                {txnRules{unfenced: true}, bumps, hangs},
		"a deposed owner confirms":               {txnRules{staleAnswers: true}, bumps, hangs},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			breaks(t, txnProtocol{test.rules, test.bounds}, test.want)
		})
	}
}
