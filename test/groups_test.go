package test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/test/harness"
)

// verifiableTool is the class behind kafka-verifiable-consumer.sh.
const verifiableTool = "org.apache.kafka.tools.VerifiableConsumer"

// quickGroups make groups of the new protocol notice things sooner than the
// defaults would.
var quickGroups = []string{"--group-consumer-heartbeat-interval", "200ms", "--group-consumer-session-timeout", "6s"}

// TestConsumerProtocolTools runs Kafka's own tools through the consumer group
// protocol (KIP-848) with both of its assignors.
func TestConsumerProtocolTools(t *testing.T) {
	harness.System(t)
	c := harness.StartEmbedded(t, quickGroups...)
	k := &tools{t: t, c: c}
	k.run(topicsTool, "--create", "--topic", "day", "--partitions", "8")
	var lines bytes.Buffer
	for i := range 200 {
		fmt.Fprintf(&lines, "key-%d\tvalue-%d\n", i, i)
	}
	k.input(&lines, producerTool, "--topic", "day", "--reader-property", "parse.key=true")

	for _, assignor := range []string{"uniform", "range"} {
		group := "new-" + assignor
		got := k.run(consumerTool, "--topic", "day", "--group", group, "--from-beginning", "--max-messages", "200",
			"--command-property", "group.protocol=consumer", "--command-property", "group.remote.assignor="+assignor)
		if n := len(strings.Split(strings.TrimSpace(got.stdout), "\n")); n != 200 {
			t.Errorf("console consumer printed %d lines, want 200", n)
		}
		k.run(groupsTool, "--list", "--type", "consumer").want(group)
		k.run(groupsTool, "--list", "--state", "empty").want(group)
		described := k.run(groupsTool, "--describe", "--group", group)
		if n := len(regexp.MustCompile(`(?m)^`+group+` +day +\d+ +\d+ +\d+ +0 `).FindAllString(described.stdout, -1)); n != 8 {
			t.Errorf("%d partitions without lag, want 8, in:\n%s", n, described.stdout)
		}
		k.run(groupsTool, "--describe", "--group", group, "--state").want("Empty")
		k.run(groupsTool, "--reset-offsets", "--group", group, "--topic", "day", "--to-earliest", "--execute").want(group)
		k.run(consumerTool, "--topic", "day", "--group", group, "--max-messages", "200", "--command-property", "group.protocol=consumer").want("value-7\n")
		k.run(groupsTool, "--delete-offsets", "--group", group, "--topic", "day").want("Successful")
		k.run(groupsTool, "--delete", "--group", group).want("was successful")
	}
}

// TestConsumerProtocolClients has the clients of KIP-848 share one group: Java's
// verifiable consumer, librdkafka through confluent-kafka, and franz-go; and a
// classic member meets one of the new protocol, in both directions.
func TestConsumerProtocolClients(t *testing.T) {
	harness.System(t)
	c := harness.StartEmbedded(t, quickGroups...)
	k := &tools{t: t, c: c}
	createTopic(t, c, "records", 6)
	produceCounted(t, c, "records", 3000)

	got := k.run(verifiableTool, "--topic", "records", "--group-id", "java", "--group-protocol", "consumer",
		"--group-remote-assignor", "range", "--reset-policy", "earliest", "--max-messages", "3000")
	got.want(`"name":"partitions_assigned"`, `"name":"offsets_committed"`, `"success":true`, `"name":"shutdown_complete"`)
	wantCommitted(t, c, "java", "records", 3000)

	out, err := harness.Command{
		Path: filepath.Join(harness.Tool(t, "python"), "bin", "python"),
		Args: []string{"testdata/group.py", c.Bootstrap(), "records", "python", "3000"},
	}.Run()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(strings.Split(strings.TrimSpace(string(out.Stdout)), "\n")); n != 6 {
		t.Errorf("librdkafka saw %d partitions:\n%s", n, out.Stdout)
	}
	wantCommitted(t, c, "python", "records", 3000)

	t.Run("migration", func(t *testing.T) { migrateGroup(t, c) })
}

// migrateGroup: a classic member, then one of the new protocol beside it, then
// the classic one leaves, comes back, and the new one leaves.
func migrateGroup(t *testing.T, c *harness.Cluster) {
	cl := newClient(t, c)
	member := func(opts ...kgo.Opt) *groupMember {
		return joinGroup(t, c, nil, append([]kgo.Opt{kgo.ConsumerGroup("moving"), kgo.ConsumeTopics("records"), kgo.SessionTimeout(6 * time.Second), kgo.HeartbeatInterval(300 * time.Millisecond)}, opts...)...)
	}
	kind := func() string {
		resp, err := kmsg.NewPtrListGroupsRequest().RequestWith(t.Context(), cl)
		if err != nil {
			return err.Error()
		}
		for _, g := range resp.Groups {
			if g.Group == "moving" {
				return g.GroupType
			}
		}
		return "unknown"
	}
	wantMembers := func(what, wantKind string, want int, ms ...*groupMember) {
		t.Helper()
		harness.Eventually(t, 30*time.Second, what, func() error {
			owned := map[int32]bool{}
			for _, m := range ms {
				for _, p := range m.partitions() {
					if owned[p] {
						return fmt.Errorf("partition %d is owned twice", p)
					}
					owned[p] = true
				}
				if n := len(m.partitions()); n != want {
					return fmt.Errorf("a member owns %d of 6 partitions, want %d", n, want)
				}
			}
			if got := kind(); got != wantKind {
				return fmt.Errorf("the group is %s", got)
			}
			return nil
		})
	}
	classic := member()
	wantMembers("the classic member to have all", "classic", 6, classic)
	next := member(kgo.ServerSideBalancer())
	wantMembers("both to share", "consumer", 3, classic, next)
	classic.leave()
	wantMembers("the new member to have all", "consumer", 6, next)
	classic = member()
	wantMembers("both to share again", "consumer", 3, classic, next)
	next.leave()
	wantMembers("the classic member to have all again", "classic", 6, classic)
	classic.leave()
}

// groupMember is a franz-go consumer and the partitions it believes are its own.
type groupMember struct {
	cl   *kgo.Client
	done chan struct{}
	mu   sync.Mutex
	own  map[int32]bool
}

// joinGroup makes a member of a group; seen, if set, is called with each record.
func joinGroup(t *testing.T, c *harness.Cluster, seen func(*kgo.Record), opts ...kgo.Opt) *groupMember {
	t.Helper()
	m := &groupMember{own: map[int32]bool{}, done: make(chan struct{})}
	note := func(owned bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, list := range parts {
				for _, p := range list {
					if delete(m.own, p); owned {
						m.own[p] = true
					}
				}
			}
		}
	}
	m.cl = newClient(t, c, append([]kgo.Opt{
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.OnPartitionsAssigned(note(true)), kgo.OnPartitionsRevoked(note(false)), kgo.OnPartitionsLost(note(false)),
		kgo.AutoCommitInterval(200 * time.Millisecond),
	}, opts...)...)
	go func() {
		defer close(m.done)
		for {
			fetches := m.cl.PollFetches(t.Context())
			if fetches.IsClientClosed() || t.Context().Err() != nil {
				return
			}
			if seen != nil {
				fetches.EachRecord(seen)
			}
		}
	}()
	return m
}

func (m *groupMember) partitions() []int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.own))
}

func (m *groupMember) leave() {
	m.cl.Close()
	<-m.done
}

func produceCounted(t *testing.T, c *harness.Cluster, topic string, n int) {
	t.Helper()
	cl := newClient(t, c, kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	var records []*kgo.Record
	for i := range n {
		records = append(records, &kgo.Record{Topic: topic, Value: fmt.Appendf(nil, "%d", i)})
	}
	if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func wantCommitted(t *testing.T, c *harness.Cluster, group, topic string, want int64) {
	t.Helper()
	offsets, err := newAdmin(t, c).FetchOffsets(t.Context(), group)
	if err != nil {
		t.Fatal(err)
	}
	var total int64
	offsets.Each(func(o kadm.OffsetResponse) {
		if o.Topic == topic {
			total += o.At
		}
	})
	if total != want {
		t.Errorf("group %s has committed %d of %d", group, total, want)
	}
}
