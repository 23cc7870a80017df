package metadata

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Keys below the cluster's root (/tidemark/<cluster>/). Values are JSON.
const (
	PrefixBrokerIDs    = "broker-ids/"   // <n> (session): BrokerID
	PrefixBrokers      = "brokers/"      // <inc> (session): Broker
	KeyController      = "controller"    // (session): Controller
	PrefixTopics       = "topics/"       // <id>: Topic
	PrefixTopicNames   = "topic-names/"  // <name>: TopicName
	PrefixPartitions   = "partitions/"   // <id>/<p>: Partition
	PrefixChains       = "chains/"       // <inc>: Chain; <inc>/owed/<heir>
	PrefixCoordinators = "coordinators/" // <shard>: Coordinator
	PrefixGroups       = "groups/"       // <shard>/<group>/...
	PrefixOffsets      = "offsets/"      // <shard>/<group>/<topicID>/<chunk>
	PrefixTxns         = "txns/"         // <shard>/<transactional id>
	PrefixConfigs      = "configs/"      // <type>/<name>: dynamic configs other than a topic's
	KeyProducerIDs     = "producer-ids"  // next unallocated block
	KeyIdentity        = "identity"      // Identity
)

// BrokerIDKey and the functions after it build keys.
func BrokerIDKey(id int32) string { return PrefixBrokerIDs + strconv.Itoa(int(id)) }

// BrokerKey is a broker's registration.
func BrokerKey(i Incarnation) string { return PrefixBrokers + i.String() }

// TopicKey is a topic by id.
func TopicKey(id TopicID) string { return PrefixTopics + id.Hex() }

// TopicNameKey maps a name to an id. Topic names are [a-zA-Z0-9._-]{1,249}.
func TopicNameKey(name string) string { return PrefixTopicNames + name }

// PartitionKey is a partition's leadership.
func PartitionKey(tp TopicPartition) string {
	return fmt.Sprintf("%s%s/%d", PrefixPartitions, tp.Topic.Hex(), tp.Partition)
}

// ChainKey is an incarnation's chain.
func ChainKey(i Incarnation) string { return PrefixChains + i.String() }

// CoordinatorKey is the owner of a group shard.
func CoordinatorKey(shard int) string { return fmt.Sprintf("%s%d", PrefixCoordinators, shard) }

// ParsePartitionKey is the inverse of PartitionKey.
func ParsePartitionKey(key string) (TopicPartition, error) {
	id, p, ok := strings.Cut(strings.TrimPrefix(key, PrefixPartitions), "/")
	if !ok || !strings.HasPrefix(key, PrefixPartitions) {
		return TopicPartition{}, fmt.Errorf("partition key %q", key)
	}
	topic, err := ParseTopicIDHex(id)
	if err != nil {
		return TopicPartition{}, err
	}
	n, err := strconv.ParseInt(p, 10, 32)
	if err != nil || n < 0 {
		return TopicPartition{}, fmt.Errorf("partition key %q", key)
	}
	return TopicPartition{Topic: topic, Partition: int32(n)}, nil
}

// BrokerID is the value of a broker id key: who holds the id.
type BrokerID struct {
	Incarnation Incarnation `json:"incarnation"`
}

// Broker is one live broker's registration, rewritten only when it changes.
type Broker struct {
	ID          int32       `json:"id"`
	Incarnation Incarnation `json:"incarnation"`
	// Lease is the session the broker's keys hang on, so that whoever seals its
	// chain can revoke it.
	Lease LeaseID `json:"lease"`
	// Host and Port are what clients are told (advertised listener).
	Host string `json:"host"`
	Port int32  `json:"port"`
	// Peer is HOST:PORT of the listener for other brokers.
	Peer    string `json:"peer"`
	Rack    string `json:"rack,omitempty"`
	Version string `json:"version"`
	// BucketFailing is set while this broker cannot write to the bucket.
	BucketFailing bool `json:"bucket_failing,omitempty"`
	// Draining is set while the broker shuts down: it is given no new work.
	Draining bool `json:"draining,omitempty"`
}

// Controller is the elected broker that assigns partitions and shards. Its
// key's revision guards every assignment.
type Controller struct {
	Incarnation Incarnation `json:"incarnation"`
	Epoch       int64       `json:"epoch"`
}

// Topic is a topic's definition. Configs holds only what was set explicitly.
type Topic struct {
	ID                TopicID           `json:"id"`
	Name              string            `json:"name"`
	Partitions        int32             `json:"partitions"`
	ReplicationFactor int16             `json:"replication_factor"`
	Configs           map[string]string `json:"configs,omitempty"`
	Created           time.Time         `json:"created"`
}

// TopicName is the value of a topic name key.
type TopicName struct {
	ID TopicID `json:"id"`
}

// Owner is one entry of a partition's owner list: Incarnation claimed Epoch.
// That it is listed does not mean that it ever led: only an OPEN committed in
// its chain means that.
type Owner struct {
	Incarnation Incarnation `json:"incarnation"`
	Epoch       int32       `json:"epoch"`
}

// Partition is the value of a partition key. Owners is oldest first with
// epochs ascending; the controller writes Preferred, only the broker that
// Preferred names appends itself to Owners, and only the newest owner drops
// older entries, once a durable checkpoint of its own chain describes the
// partition.
type Partition struct {
	Owners    []Owner     `json:"owners,omitempty"`
	Preferred Incarnation `json:"preferred"`
}

// Newest returns the last owner, or false when nobody ever claimed the partition.
func (p *Partition) Newest() (Owner, bool) {
	if len(p.Owners) == 0 {
		return Owner{}, false
	}
	return p.Owners[len(p.Owners)-1], true
}

// Chain is the value of a chain key. Checkpoint is the newest durable
// checkpoint: it describes every slot below it (0: none). Trim is the slot
// below which objects may be deleted. End is the first slot that does not
// belong to the chain, decided once and never changed; nil while unsealed.
// Inherited is set once no owner list has an entry of the sealed chain: nobody
// needs to recover it any more, and its mark may pass its checkpoint. Objects
// below Deleted are gone; with Collected, all that ever go are.
type Chain struct {
	Checkpoint uint64  `json:"checkpoint"`
	Trim       uint64  `json:"trim"`
	End        *uint64 `json:"end,omitempty"`
	Inherited  bool    `json:"inherited,omitempty"`
	Deleted    uint64  `json:"deleted,omitempty"`
	Collected  bool    `json:"collected,omitempty"`
}

// Coordinator is the value of a coordinator shard key. Its revision guards
// every write of the shard's state.
type Coordinator struct {
	Incarnation Incarnation `json:"incarnation"`
	Epoch       int32       `json:"epoch"`
}

// GroupShards is the number of coordinator shards, of groups and of transactions:
// the partition count of __consumer_offsets and __transaction_state in Kafka's
// defaults.
const GroupShards = 50

// Identity ties an etcd prefix to a bucket.
type Identity struct {
	ClusterID  string `json:"cluster_id"`
	Generation uint16 `json:"generation"`
	// Ready is false between the creation of this key and that of the
	// bucket's: a first start that died there may go on.
	Ready bool `json:"ready"`
}
