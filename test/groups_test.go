package test

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/tidemark-io/tidemark/test/harness"
)

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
