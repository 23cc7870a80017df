package chaos

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/test/chaos/tcpproxy"
	"github.com/tidemark-io/tidemark/test/checker"
)

// kafkaRule is one rule at every broker's proxy.
type kafkaRule struct{ at []*tcpproxy.Active }

func (r *rig) kafkaRule(rule tcpproxy.Rule) kafkaRule {
	var k kafkaRule
	for _, p := range r.clients {
		k.at = append(k.at, p.Add(rule))
	}
	return k
}

func (k kafkaRule) remove() {
	for _, a := range k.at {
		a.Remove()
	}
}

func (k kafkaRule) counts() tcpproxy.Counts {
	var sum tcpproxy.Counts
	for _, a := range k.at {
		c := a.Counts()
		sum.Seen, sum.Hit, sum.Done, sum.Applied = sum.Seen+c.Seen, sum.Hit+c.Hit, sum.Done+c.Done, sum.Applied+c.Applied
	}
	return sum
}

// misled is a rule of the Kafka proxies as a fault.
func (r *rig) misled(kind string, rule tcpproxy.Rule) (*fault, kafkaRule) {
	var k kafkaRule
	f := r.begin(kind, checker.Minority, nil, func() func() {
		k = r.kafkaRule(rule)
		return k.remove
	})
	return f, k
}

var produceKey = kmsg.NewPtrProduceRequest().Key()

// TestS13InFlight: producers with five requests in flight, of which some are
// refused, lost, held or left without a reply: nothing is reordered, lost or
// doubled by that.
func TestS13InFlight(t *testing.T) {
	r := newRig(t, "S13", rigOptions{})
	// The very first produce requests of all are among those that are hit: a
	// broker that has never heard of a producer must not take its second batch
	// for its first.
	first, early := r.misled("first produce refused", tcpproxy.Rule{
		Key: produceKey, Action: tcpproxy.RefuseProduce, Code: kerr.NotLeaderForPartition.Code, Count: 6})
	l := r.startLoad(loadOptions{rate: 150})
	first.heal()
	each := pick(3*time.Second, 30*time.Second)
	held := pick(1*time.Second, 10*time.Second)
	values := figures{"first requests refused": early.counts().Done}
	for _, c := range []struct {
		name string
		rule tcpproxy.Rule
	}{
		{"refused NOT_LEADER", tcpproxy.Rule{Action: tcpproxy.RefuseProduce, Code: kerr.NotLeaderForPartition.Code, Probability: 0.1}},
		{"refused REQUEST_TIMED_OUT", tcpproxy.Rule{Action: tcpproxy.RefuseProduce, Code: kerr.RequestTimedOut.Code, Probability: 0.1}},
		{"lost before delivery", tcpproxy.Rule{Action: tcpproxy.CutBeforeRequest, Probability: 0.05}},
		{"replies cut", tcpproxy.Rule{Action: tcpproxy.CutBeforeReply, Probability: 0.05}},
		{"held and dropped", tcpproxy.Rule{Action: tcpproxy.HoldAndDrop, Delay: held, Probability: 0.02}},
	} {
		c.rule.Key = produceKey
		f, k := r.misled(c.name, c.rule)
		time.Sleep(each)
		f.heal()
		n := k.counts()
		if n.Done == 0 {
			t.Errorf("%s: nothing was hit", c.name)
		}
		values[c.name] = n.Done
	}
	time.Sleep(held) // what was held arrives
	l.finish()
	r.report("five in flight", values)
	if early.counts().Done == 0 {
		t.Error("the first requests were not refused")
	}
}
