package test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark-io/tidemark/test/harness"
)

// TestConsumerProtocolKills has members of a group of the new protocol come and
// go while the coordinator's broker is killed again and again. No record is
// missed, committed offsets never go back (C13), no partition is two members'
// in the end (C14), and nobody stays stuck.
func TestConsumerProtocolKills(t *testing.T) {
	harness.System(t)
	const partitions = 12
	kills := 4
	if harness.Long() {
		kills = 40
	}
	c := harness.StartCluster(t, harness.Options{Args: quickGroups})
	createTopic(t, c, "work", partitions)
	r := &groupRun{t: t, c: c, seen: map[string]bool{}, high: map[int32]int64{}}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { r.produce(ctx) })
	wg.Go(func() { r.watch(ctx) })

	members := []*groupMember{r.join(), r.join(), r.join()}
	for i := range kills {
		time.Sleep(time.Duration(i%3) * time.Second)
		members = append(members, r.join()) // a rebalance begins
		time.Sleep(time.Duration(i*300%1000) * time.Millisecond)
		b := r.coordinator()
		b.Kill()
		members[0].leave()
		members = members[1:]
		time.Sleep(3 * time.Second)
		b.Start()
	}
	stop()
	wg.Wait()
	harness.Eventually(t, 60*time.Second, "every record consumed and committed", func() error {
		owners := map[int32]int{}
		for _, m := range members {
			for _, p := range m.partitions() {
				owners[p]++
			}
		}
		for p := range int32(partitions) {
			if owners[p] != 1 {
				return fmt.Errorf("partition %d has %d owners", p, owners[p])
			}
		}
		if err := r.lag(); err != nil {
			return err
		}
		return r.missing()
	})
	figure(t, "consumer protocol: %d kills of the coordinator, %d records, none missed", kills, len(r.acked))
	for _, m := range members {
		m.leave()
	}
}

// groupRun is what the members of the group have to do with one another.
type groupRun struct {
	t     *testing.T
	c     *harness.Cluster
	mu    sync.Mutex
	acked []string
	seen  map[string]bool
	high  map[int32]int64
}

func (r *groupRun) join() *groupMember {
	return joinGroup(r.t, r.c, func(rec *kgo.Record) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.seen[string(rec.Value)] = true
	}, kgo.ConsumerGroup("work"), kgo.ConsumeTopics("work"), kgo.ServerSideBalancer())
}

func (r *groupRun) produce(ctx context.Context) {
	cl := newClient(r.t, r.c, kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	for i := 0; ctx.Err() == nil; i++ {
		value := fmt.Sprint("record-", i)
		if err := cl.ProduceSync(r.t.Context(), &kgo.Record{Topic: "work", Value: []byte(value)}).FirstErr(); err != nil {
			r.t.Errorf("produce: %v", err)
			return
		}
		r.mu.Lock()
		r.acked = append(r.acked, value)
		r.mu.Unlock()
	}
}

// watch sees that committed offsets only grow.
func (r *groupRun) watch(ctx context.Context) {
	adm := newAdmin(r.t, r.c)
	for ctx.Err() == nil {
		offsets, err := adm.FetchOffsets(ctx, "work")
		if err == nil {
			offsets.Each(func(o kadm.OffsetResponse) {
				if o.Err == nil && o.At < r.high[o.Partition] {
					r.t.Errorf("partition %d: committed %d after %d", o.Partition, o.At, r.high[o.Partition])
				} else if o.Err == nil {
					r.high[o.Partition] = o.At
				}
			})
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// coordinator is the broker that coordinates the group now.
func (r *groupRun) coordinator() *harness.Broker {
	r.t.Helper()
	var found *harness.Broker
	adm := newAdmin(r.t, r.c)
	harness.Eventually(r.t, 30*time.Second, "a coordinator", func() error {
		resp := adm.FindGroupCoordinators(r.t.Context(), "work")
		err := resp.Error()
		resp.Each(func(f kadm.FindCoordinatorResponse) {
			for _, b := range r.c.Brokers {
				if b.Addr == fmt.Sprintf("%s:%d", f.Host, f.Port) && b.Running() {
					found = b
				}
			}
		})
		if found == nil {
			err = errors.Join(err, errors.New("none of the brokers that run"))
		}
		return err
	})
	return found
}

// lag is an error unless everything is committed. kadm's own asks for a classic
// group.
func (r *groupRun) lag() error {
	adm := newAdmin(r.t, r.c)
	committed, err := adm.FetchOffsets(r.t.Context(), "work")
	if err != nil {
		return err
	}
	ends, err := adm.ListEndOffsets(r.t.Context(), "work")
	if err != nil {
		return err
	}
	ends.Each(func(end kadm.ListedOffset) {
		if o, _ := committed.Lookup(end.Topic, end.Partition); o.At != end.Offset && end.Offset > 0 {
			err = fmt.Errorf("partition %d is committed at %d of %d", end.Partition, o.At, end.Offset)
		}
	})
	return errors.Join(err, ends.Error())
}

func (r *groupRun) missing() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, value := range r.acked {
		if !r.seen[value] {
			return fmt.Errorf("%s of %d was never seen", value, len(r.acked))
		}
	}
	return nil
}
