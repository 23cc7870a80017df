package test

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/tidemark-io/tidemark/test/harness"
)

// The classes behind kafka-topics.sh and its siblings.
const (
	topicsTool   = "org.apache.kafka.tools.TopicCommand"
	producerTool = "org.apache.kafka.tools.ConsoleProducer"
	consumerTool = "org.apache.kafka.tools.consumer.ConsoleConsumer"
	groupsTool   = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
	perfTool     = "org.apache.kafka.tools.ProducerPerformance"
	offsetsTool  = "org.apache.kafka.tools.GetOffsetShell"
	versionsTool = "org.apache.kafka.tools.BrokerApiVersionsCommand"
)

// TestKafkaTools runs Kafka's own command-line tools and kcat through an
// ordinary day. None may fail, and none may say a word on standard error that
// it would not say to real Kafka.
func TestKafkaTools(t *testing.T) {
	harness.System(t)
	c := harness.StartCluster(t, harness.Options{})
	k := &tools{t: t, c: c}

	k.run(topicsTool, "--create", "--topic", "day", "--partitions", "6", "--replication-factor", "3").want("Created topic day.")
	k.run(topicsTool, "--list").want("day")
	k.run(topicsTool, "--alter", "--topic", "day", "--partitions", "8")
	k.run(topicsTool, "--describe", "--topic", "day").want("PartitionCount: 8", "Partition: 7")

	var lines bytes.Buffer
	for i := range 200 {
		fmt.Fprintf(&lines, "key-%d\tvalue-%d\n", i, i)
	}
	k.input(&lines, producerTool, "--topic", "day", "--reader-property", "parse.key=true")
	got := k.run(consumerTool, "--topic", "day", "--group", "workers", "--from-beginning", "--max-messages", "200")
	if n := len(strings.Split(strings.TrimSpace(got.stdout), "\n")); n != 200 {
		t.Errorf("console consumer printed %d lines, want 200", n)
	}
	got.want("value-0\n", "value-199\n")

	k.run(groupsTool, "--list").want("workers")
	k.run(groupsTool, "--list", "--state").want("workers", "Empty")
	described := k.run(groupsTool, "--describe", "--group", "workers")
	if n := len(regexp.MustCompile(`(?m)^workers +day +\d+ +\d+ +\d+ +0 `).FindAllString(described.stdout, -1)); n == 0 {
		t.Errorf("no partition without lag in:\n%s", described.stdout)
	}
	k.run(groupsTool, "--describe", "--group", "workers", "--state").want("Empty")
	k.run(groupsTool, "--reset-offsets", "--group", "workers", "--topic", "day", "--to-earliest", "--execute").want("workers")
	k.run(consumerTool, "--topic", "day", "--group", "workers", "--max-messages", "200").want("value-7\n")
	k.run(groupsTool, "--delete", "--group", "workers").want("was successful")

	k.run(perfTool, "--topic", "day", "--num-records", "20000", "--record-size", "200", "--throughput", "-1").want("20000 records sent")
	if total := k.offsets("-1"); total != 20200 {
		t.Errorf("end offsets add up to %d, want 20200", total)
	}
	if total := k.offsets("-2"); total != 0 {
		t.Errorf("start offsets add up to %d, want 0", total)
	}
	k.run(versionsTool).want("Produce(0): ", "Fetch(1): ")

	k.kcat("-L").want("3 brokers", `topic "day" with 8 partitions`)
	k.kcat("-Q", "-t", "day:0:0", "-t", "day:3:-1").want("day [0] offset 0", "day [3] offset ")

	k.run(topicsTool, "--delete", "--topic", "day")
	if out := k.run(topicsTool, "--list"); strings.Contains(out.stdout, "day") {
		t.Errorf("the deleted topic is still listed:\n%s", out.stdout)
	}
}

type tools struct {
	t *testing.T
	c *harness.Cluster
}

type printed struct {
	t      *testing.T
	what   string
	stdout string
}

func (p printed) want(parts ...string) {
	p.t.Helper()
	for _, part := range parts {
		if !strings.Contains(p.stdout, part) {
			p.t.Errorf("%s: no %q in:\n%s", p.what, part, p.stdout)
		}
	}
}

// usual is what the tools say on standard error to real Kafka too. They praise
// the newer group protocol to every user of the classic one.
var usual = regexp.MustCompile(`^(Processed a total of \d+ messages|Consumer group '.*' has no active members\.|` +
	`The consumer rebalance protocol \(KIP-848\) is production-ready!.*)?$`)

// unusual are the lines on a tool's standard error that real Kafka would not give.
func unusual(stderr []byte) []string {
	var lines []string
	for _, line := range strings.Split(string(stderr), "\n") {
		if line = strings.TrimSpace(line); !usual.MatchString(line) {
			lines = append(lines, line)
		}
	}
	return lines
}

func (k *tools) run(class string, args ...string) printed {
	k.t.Helper()
	return k.input(&bytes.Buffer{}, class, args...)
}

func (k *tools) input(stdin *bytes.Buffer, class string, args ...string) printed {
	k.t.Helper()
	cmd := harness.Kafka(k.t, class, append([]string{"--bootstrap-server", k.c.Bootstrap()}, args...)...)
	cmd.Stdin = stdin
	return k.judge(class[strings.LastIndex(class, ".")+1:]+" "+strings.Join(args, " "), cmd)
}

func (k *tools) kcat(args ...string) printed {
	k.t.Helper()
	return k.judge("kcat "+strings.Join(args, " "), harness.Kcat(k.t, append([]string{"-b", k.c.Bootstrap()}, args...)...))
}

func (k *tools) judge(what string, cmd harness.Command) printed {
	k.t.Helper()
	out, err := cmd.Run()
	if err != nil {
		k.t.Fatal(err)
	}
	for _, line := range unusual(out.Stderr) {
		k.t.Errorf("%s: said on standard error: %s", what, line)
	}
	for _, bad := range []string{"WARN", "ERROR", "Error:", "Exception"} {
		if bytes.Contains(out.Stdout, []byte(bad)) {
			k.t.Errorf("%s: %s in its output:\n%s", what, bad, out.Stdout)
		}
	}
	return printed{k.t, what, string(out.Stdout)}
}

// offsets adds up what get-offsets prints for all partitions at a time.
func (k *tools) offsets(at string) int64 {
	k.t.Helper()
	out := k.run(offsetsTool, "--topic", "day", "--time", at)
	var total int64
	lines := strings.Fields(out.stdout)
	if len(lines) != 8 {
		k.t.Errorf("get-offsets printed %d partitions, want 8:\n%s", len(lines), out.stdout)
	}
	for _, line := range lines {
		var p int
		var offset int64
		if _, err := fmt.Sscanf(line, "day:%d:%d", &p, &offset); err != nil {
			k.t.Errorf("get-offsets printed %q: %v", line, err)
		}
		total += offset
	}
	return total
}
