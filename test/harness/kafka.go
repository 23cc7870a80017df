package harness

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// ApacheKafka is Apache Kafka as a single node that is broker and controller.
type ApacheKafka struct {
	*server
	Addr string
}

// kafkaHeap and what follows are the options of Kafka's own start script.
var kafkaHeap = []string{
	"-Xms1g", "-Xmx1g", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20",
	"-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true",
}

// StartKafka formats a node's directory and runs it, with Kafka's defaults but
// for the properties given, each as name=value.
func StartKafka(t T, name string, properties ...string) *ApacheKafka {
	t.Helper()
	k := &ApacheKafka{Addr: FreeAddr(t)}
	dir := t.TempDir()
	conf := filepath.Join(dir, "server.properties")
	lines := append(k.properties(t, dir), properties...)
	if err := os.WriteFile(conf, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		t.Fatalf("%v", err)
	}
	format := Command{Path: java(t), Args: javaArgs(t, nil, "kafka.tools.StorageTool", "format",
		"--cluster-id", "dGlkZW1hcmstYmVuY2gtMA", "--config", conf)}
	if _, err := format.Run(); err != nil {
		t.Fatalf("format Kafka's directory: %v", err)
	}
	k.server = newServer(t, name, filepath.Join(logDir(t), name+".log"), func() *exec.Cmd {
		return exec.Command(java(t), javaArgs(t, kafkaHeap, "kafka.Kafka", conf)...)
	})
	k.Start()
	k.waitListening()
	return k
}

func (k *ApacheKafka) properties(t T, dir string) []string {
	controller := FreeAddr(t)
	return []string{
		"process.roles=broker,controller", "node.id=1", "controller.quorum.voters=1@" + controller,
		"listeners=PLAINTEXT://" + k.Addr + ",CONTROLLER://" + controller,
		"advertised.listeners=PLAINTEXT://" + k.Addr, "controller.listener.names=CONTROLLER",
		"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"inter.broker.listener.name=PLAINTEXT", "log.dirs=" + filepath.Join(dir, "log"),
		"offsets.topic.replication.factor=1", "transaction.state.log.replication.factor=1",
		"transaction.state.log.min.isr=1", "group.initial.rebalance.delay.ms=100",
	}
}

// waitListening waits until clients are accepted, and gives up if the process ends.
func (k *ApacheKafka) waitListening() {
	k.t.Helper()
	Eventually(k.t, readyLimit, k.name+" listening", func() error {
		select {
		case <-k.Done():
			k.t.Fatalf("%s ended while it was starting:\n%s", k.name, tail(k.log))
		default:
		}
		c, err := net.DialTimeout("tcp", k.Addr, time.Second)
		if err != nil {
			return err
		}
		return c.Close()
	})
}

func java(t T) string {
	t.Helper()
	path, err := exec.LookPath("java")
	if err != nil {
		Missing(t, "java")
	}
	return path
}

// javaArgs run a class of the broker's jars.
func javaArgs(t T, options []string, class string, args ...string) []string {
	t.Helper()
	dir := filepath.Join(Tools(), "kafka-broker")
	if _, err := os.Stat(dir); err != nil {
		Missing(t, "%s; run test/tools/install.sh kafka-broker", dir)
	}
	out := append([]string{}, options...)
	out = append(out, "-Dlog4j2.configurationFile="+filepath.Join(dir, "log4j2.xml"), "-cp", fmt.Sprintf("%s/*", dir), class)
	return append(out, args...)
}
