package chaos

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tidemark-io/tidemark/test/checker"
	"github.com/tidemark-io/tidemark/test/checker/franz"
)

const (
	// healMax is how long after the last fault every partition takes writes again.
	healMax = 15 * time.Second
	// scanMax bounds all reads of the whole log.
	scanMax = 5 * time.Minute
)

// finish heals everything, waits until the cluster lives again, reads the log
// back, audits the storage and judges the history.
func (l *load) finish() {
	r := l.r
	r.t.Helper()
	r.healAll()
	r.start(r.all()...)
	r.cluster.WaitReady()
	r.history.Heal()
	healed := l.waitAcks(time.Now(), healMax)
	if l.txns != nil {
		l.txns.settle()
	}
	l.cancel()
	l.sending.Wait()
	for _, cl := range l.producers {
		ctx, cancel := context.WithTimeout(context.Background(), flushMax)
		if err := cl.Flush(ctx); err != nil {
			r.t.Errorf("records still undelivered a minute after the last fault: %v", err)
		}
		cancel()
	}
	l.quit()
	l.reading.Wait()
	l.scan()
	l.judge(healed)
}

// scan reads the whole log by fresh consumers, two by way of each broker.
func (l *load) scan() {
	r := l.r
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), scanMax)
	defer cancel()
	var wg sync.WaitGroup
	errs := make([]error, 2*len(r.brokers))
	for i, b := range r.brokers {
		wg.Go(func() {
			for n := range 2 {
				errs[2*i+n] = l.scanBy(ctx, fmt.Sprintf("scanner-%d-%s", n, b.Name), b.Name, r.clients[i].Addr(), n == 0)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			r.t.Error(err)
		}
	}
}

// scanBy reads every topic once by way of one broker, and what is committed of it.
func (l *load) scanBy(ctx context.Context, who, node, addr string, committed bool) error {
	h := l.r.history
	err := franz.Scan(ctx, h, who, node, addr, topic)
	if l.txns == nil {
		return err
	}
	for _, name := range []string{txnIn, txnOut, txnMix} {
		err = errors.Join(err, franz.Scan(ctx, h, who+" of "+name, node, addr, name))
		if committed {
			err = errors.Join(err, franz.ScanCommitted(ctx, h, who+" of what is committed to "+name, node, addr, name))
		}
	}
	return err
}

// judge fails the test for every invariant that the history breaks.
func (l *load) judge(healed time.Duration) {
	r := l.r
	r.t.Helper()
	rules := checker.Rules{Audit: r.cluster.AuditReport(), Staleness: l.o.staleness, TxnTimeout: txnTimeout}
	if l.txns != nil {
		rules.Copies = []checker.Copy{{From: txnIn, To: txnOut}}
	}
	for _, b := range r.brokers {
		rules.Nodes = append(rules.Nodes, b.Name)
	}
	if err := r.closeHistory(); err != nil {
		r.t.Errorf("the history is incomplete: %v", err)
	}
	v := r.history.Check(rules)
	r.t.Log(v)
	for _, broken := range v.Violations {
		r.t.Error(broken)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, err := range l.clientErrs {
		if i == 10 {
			r.t.Errorf("… and %d more errors", len(l.clientErrs)-i)
			break
		}
		r.t.Errorf("a client met an error it does not retry: %v", err)
	}
	overwritten := r.overwritten()
	if overwritten > 0 {
		r.t.Errorf("%d objects were created twice", overwritten)
	}
	if v.Counts.Acked == 0 || v.Committed == 0 || v.Fetched == 0 || v.Watermarks == 0 {
		r.t.Errorf("too little happened to show anything: %v", v)
	}
	if x := l.txns; x != nil {
		r.report("transactions", figures{"transactions": v.Transactions, "committed": v.Commits, "aborted": v.Aborts, "copied": v.Copied,
			"left open by their client": x.left.Load(), "ends of unknown outcome": x.unknown.Load()})
		if v.Commits == 0 || v.Copied == 0 {
			r.t.Errorf("too few transactions to show anything: %v", v)
		}
	}
	broken := 0
	for _, n := range v.Broken {
		broken += n
	}
	r.report("history", figures{
		"acked": v.Counts.Acked, "unknown": v.Counts.Unknown, "read": v.Counts.Read, "scans": v.Scans, "watermarks": v.Watermarks,
		"commits": v.Committed, "fetches": v.Fetched, "faults": v.Faults, "broken": broken, "client errors": len(l.clientErrs),
		"overwritten": overwritten, "audit clean": rules.Audit.Clean, "kills": r.kills, "exits": r.exited(), "starts given up": r.starts,
		"first ack after heal": milli(healed),
	})
}
