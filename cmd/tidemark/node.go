package main

import (
	"fmt"
	"net"
	"strconv"

	"github.com/tidemark-io/tidemark/broker/group/consumer"
	"github.com/tidemark-io/tidemark/broker/node"
	"github.com/tidemark-io/tidemark/metadata"
)

// node is the broker that runs on what base opened.
func (b *base) node() (*node.Config, error) {
	cfg := b.cfg
	host, portText, err := net.SplitHostPort(cfg.Advertise)
	if err != nil {
		return nil, fmt.Errorf("advertise: %w", err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("advertise: port %q: %w", portText, err)
	}
	peer := ""
	if !cfg.Embedded() {
		peer = cfg.PeerAdvertise
	}
	migration, err := consumer.ParseMigration(cfg.ConsumerMigrationPolicy)
	if err != nil {
		return nil, fmt.Errorf("group-consumer-migration-policy: %w", err)
	}
	return &node.Config{
		Store: b.store, KV: b.kv, Cache: b.cache, Identity: b.identity, Cluster: b.cluster,
		Broker: metadata.Broker{Host: host, Port: int32(port), Peer: peer, Rack: cfg.Rack, Version: versionString()},
		Single: cfg.Embedded(), Listen: b.listen,
		FlushSpacing: cfg.FlushSpacing, FlushBudget: cfg.FlushBudget, MemoryTailBytes: cfg.MemoryTailBytes,
		Tiering: node.Tiering{
			Interval: cfg.TierInterval, Age: cfg.TierAge, Bytes: cfg.TierBytes,
			SegmentBytes: cfg.SegmentBytes, SegmentBytesMax: cfg.SegmentBytesMax,
			CollectInterval: cfg.CollectInterval, SweepInterval: cfg.SweepInterval, SweepAge: cfg.SweepAge,
			RetentionInterval: cfg.RetentionInterval, DeleteGrace: cfg.DeleteGrace,
		},
		AutoCreateTopics: cfg.AutoCreateTopics, DefaultPartitions: cfg.NumPartitions, GroupInitialRebalanceDelay: cfg.GroupInitialRebalanceDelay,
		Consumer: consumer.Config{
			SessionTimeout: cfg.ConsumerSessionTimeout, HeartbeatInterval: cfg.ConsumerHeartbeatInterval, Migration: migration,
		},
		OffsetsRetention: cfg.OffsetsRetention, OffsetsTopicInterval: cfg.OffsetsTopicInterval,
		TransactionTimeoutMax: cfg.TransactionTimeoutMax, TransactionalIDExpiration: cfg.TransactionalIDExpiration,
		RegisterTimeout: openTimeout, DrainTimeout: cfg.DrainTimeout, Logger: b.log, Tracer: b.tracer,
	}, nil
}

// listen opens an incarnation's listeners. An embedded broker has no peers.
func (b *base) listen() (clients, peers net.Listener, err error) {
	clients, err = net.Listen("tcp", b.cfg.Listen)
	if err != nil {
		return nil, nil, fmt.Errorf("listen for clients: %w", err)
	}
	if b.cfg.Embedded() {
		return clients, nil, nil
	}
	peers, err = net.Listen("tcp", b.cfg.Peer)
	if err != nil {
		_ = clients.Close()
		return nil, nil, fmt.Errorf("listen for peers: %w", err)
	}
	return clients, peers, nil
}
