package test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark-io/tidemark/test/harness"
)

// readers are the clients a topic must read the same with. Each reads a topic
// of n records from its beginning.
var readers = []struct {
	name string
	read func(t *testing.T, c *harness.Cluster, topic string, n int) (contents, error)
}{
	{"kcat", readKcat},
	{"console-consumer", readConsole},
	{"confluent-kafka", readPython},
	{"franz-go", readFranz},
	{"sarama", readSarama},
	{"kafka-go", readKafkaGo},
	{"kafkajs", readNode},
}

const readLimit = 2 * time.Minute

func readKcat(t *testing.T, c *harness.Cluster, topic string, n int) (contents, error) {
	out, err := harness.Kcat(t, "-C", "-b", c.Bootstrap(), "-t", topic, "-o", "beginning", "-e", "-q",
		"-f", `%p %o %K %S\n%k%s\n`).Run()
	if err != nil {
		return nil, err
	}
	return parseFrames(out.Stdout)
}

func readPython(t *testing.T, c *harness.Cluster, topic string, n int) (contents, error) {
	out, err := harness.Command{
		Path:  filepath.Join(harness.Tool(t, "python"), "bin", "python"),
		Args:  []string{"testdata/consume.py", c.Bootstrap(), topic},
		Limit: readLimit,
	}.Run()
	if err != nil {
		return nil, err
	}
	return parseFrames(out.Stdout)
}

func readNode(t *testing.T, c *harness.Cluster, topic string, n int) (contents, error) {
	node, err := exec.LookPath("node")
	if err != nil {
		harness.Missing(t, "node")
	}
	out, err := harness.Command{
		Path:  node,
		Args:  []string{"testdata/consume.js", c.Bootstrap(), topic, strconv.Itoa(n)},
		Env:   append(os.Environ(), "NODE_PATH="+filepath.Join(harness.Tool(t, "node"), "node_modules")),
		Limit: readLimit,
	}.Run()
	if err != nil {
		return nil, err
	}
	return parseFrames(out.Stdout)
}

// parseFrames reads what kcat and the scripts print for each record: a line of
// partition, offset, key length and value length, then key, value and a newline.
func parseFrames(out []byte) (contents, error) {
	got := make(contents)
	in := bufio.NewReader(bytes.NewReader(out))
	for {
		line, err := in.ReadString('\n')
		if err == io.EOF && line == "" {
			return got, nil
		}
		var partition int32
		var offset int64
		var keyLen, valueLen int
		if _, err := fmt.Sscanf(line, "%d %d %d %d\n", &partition, &offset, &keyLen, &valueLen); err != nil {
			return nil, fmt.Errorf("frame %q: %w", line, err)
		}
		if keyLen < 0 || valueLen < 0 || keyLen+valueLen > len(out) {
			return nil, fmt.Errorf("frame %q: impossible lengths", line)
		}
		buf := make([]byte, keyLen+valueLen+1)
		if _, err := io.ReadFull(in, buf); err != nil {
			return nil, fmt.Errorf("frame %q: %w", line, err)
		}
		got[partition] = append(got[partition], record{offset, string(buf[:keyLen]), buf[keyLen : keyLen+valueLen]})
	}
}

func readConsole(t *testing.T, c *harness.Cluster, topic string, n int) (contents, error) {
	out, err := harness.Kafka(t, "org.apache.kafka.tools.consumer.ConsoleConsumer",
		"--bootstrap-server", c.Bootstrap(), "--topic", topic, "--from-beginning", "--max-messages", strconv.Itoa(n),
		"--formatter-property", "print.partition=true", "--formatter-property", "print.offset=true",
		"--formatter-property", "print.key=true", "--formatter-property", "key.separator="+keyDelimiter,
		"--formatter-property", "line.separator="+recordDelimiter).Run()
	if err != nil {
		return nil, err
	}
	if complaints := unusual(out.Stderr); len(complaints) > 0 {
		return nil, fmt.Errorf("console consumer complained: %q", complaints)
	}
	got := make(contents)
	for _, line := range bytes.Split(bytes.TrimSuffix(out.Stdout, []byte(recordDelimiter)), []byte(recordDelimiter)) {
		parts := bytes.SplitN(line, []byte(keyDelimiter), 4)
		if len(parts) != 4 {
			return nil, fmt.Errorf("console consumer printed %q", line)
		}
		p, err := strconv.Atoi(strings.TrimPrefix(string(parts[0]), "Partition:"))
		if err != nil {
			return nil, err
		}
		offset, err := strconv.ParseInt(strings.TrimPrefix(string(parts[1]), "Offset:"), 10, 64)
		if err != nil {
			return nil, err
		}
		got[int32(p)] = append(got[int32(p)], record{offset, string(parts[2]), parts[3]})
	}
	return got, nil
}

func readFranz(t *testing.T, c *harness.Cluster, topic string, n int) (contents, error) {
	got := make(contents)
	scan(t, c, topic, func(r *kgo.Record) {
		got[r.Partition] = append(got[r.Partition], record{r.Offset, string(r.Key), r.Value})
	})
	return got, nil
}

func readSarama(t *testing.T, c *harness.Cluster, topic string, n int) (contents, error) {
	conf := sarama.NewConfig()
	conf.Version = sarama.MaxVersion
	conf.Consumer.Return.Errors = true
	consumer, err := sarama.NewConsumer(c.Seeds(), conf)
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	partitions, err := consumer.Partitions(topic)
	if err != nil {
		return nil, err
	}
	got := make(contents)
	for _, p := range partitions {
		if err := readSaramaPartition(consumer, topic, p, got); err != nil {
			return nil, fmt.Errorf("partition %d: %w", p, err)
		}
	}
	return got, nil
}

func readSaramaPartition(consumer sarama.Consumer, topic string, p int32, got contents) error {
	pc, err := consumer.ConsumePartition(topic, p, sarama.OffsetOldest)
	if err != nil {
		return err
	}
	defer pc.Close()
	limit := time.After(readLimit)
	for {
		select {
		case m := <-pc.Messages():
			got[p] = append(got[p], record{m.Offset, string(m.Key), m.Value})
			if m.Offset == pc.HighWaterMarkOffset()-1 {
				return nil
			}
		case err := <-pc.Errors():
			return err
		case <-limit:
			return fmt.Errorf("not read within %v", readLimit)
		}
	}
}

func readKafkaGo(t *testing.T, c *harness.Cluster, topic string, n int) (contents, error) {
	ctx, cancel := context.WithTimeout(t.Context(), readLimit)
	defer cancel()
	conn, err := kafka.DialContext(ctx, "tcp", c.Seeds()[0])
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	partitions, err := conn.ReadPartitions(topic)
	if err != nil {
		return nil, err
	}
	got := make(contents)
	for _, p := range partitions {
		if err := readKafkaGoPartition(ctx, c, topic, p.ID, got); err != nil {
			return nil, fmt.Errorf("partition %d: %w", p.ID, err)
		}
	}
	return got, nil
}

func readKafkaGoPartition(ctx context.Context, c *harness.Cluster, topic string, p int, got contents) error {
	leader, err := kafka.DialLeader(ctx, "tcp", c.Seeds()[0], topic, p)
	if err != nil {
		return err
	}
	end, err := leader.ReadLastOffset()
	leader.Close()
	if err != nil {
		return err
	}
	r := kafka.NewReader(kafka.ReaderConfig{Brokers: c.Seeds(), Topic: topic, Partition: p, MaxBytes: 10 << 20, MaxWait: 200 * time.Millisecond})
	defer r.Close()
	for next := int64(0); next < end; next++ {
		m, err := r.ReadMessage(ctx)
		if err != nil {
			return err
		}
		got[int32(p)] = append(got[int32(p)], record{m.Offset, string(m.Key), slices.Clone(m.Value)})
	}
	return nil
}
