package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/broker/internal/configdef"
	"github.com/tidemark-io/tidemark/metadata"
)

// adminWaitMax bounds what a client may ask for, adminWaitMin what it may ask
// for too little of: Kafka answers a timeout of 0 before the work is done.
const (
	adminWaitMin = time.Second
	adminWaitMax = time.Minute
)

// partitionsPerRequestMax bounds what one request may create (Kafka: 10,000).
const partitionsPerRequestMax = 10_000

// checkSize refuses a request for more partitions than that.
func (s *Server) checkSize(req *kmsg.CreateTopicsRequest) error {
	total := 0
	for i := range req.Topics {
		switch t := &req.Topics[i]; {
		case len(t.ReplicaAssignment) > 0:
			total += len(t.ReplicaAssignment)
		case t.NumPartitions == -1:
			total += int(s.cfg.DefaultPartitions)
		default:
			total += max(1, int(t.NumPartitions))
		}
	}
	if len(req.Topics) > 1 && total > partitionsPerRequestMax {
		return refuse(kerr.PolicyViolation, "Excessively large number of partitions per request.")
	}
	return nil
}

func adminTimeout(ctx context.Context, millis int32) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, max(adminWaitMin, timeout(millis, adminWaitMax)))
}

func (s *Server) createTopics(ctx context.Context, r *Request, req *kmsg.CreateTopicsRequest) kmsg.Response {
	ctx, cancel := adminTimeout(ctx, req.TimeoutMillis)
	defer cancel()
	resp := kmsg.NewPtrCreateTopicsResponse()
	size := s.checkSize(req)
	named := map[string]int{}
	for i := range req.Topics {
		named[req.Topics[i].Topic]++
	}
	for i := range req.Topics {
		t := &req.Topics[i]
		if named[t.Topic] == 0 {
			continue // a duplicate, answered before
		}
		err := size
		if named[t.Topic] > 1 {
			err = refuse(kerr.InvalidRequest, "Duplicate topic name.")
		}
		named[t.Topic] = 0
		resp.Topics = append(resp.Topics, s.createTopic(ctx, r, req, t, err))
	}
	for i := range resp.Topics { // all at once: their leaders come together
		if t, ok := s.cfg.View.TopicByID(resp.Topics[i].TopicID); ok && !req.ValidateOnly {
			s.awaitLeaders(ctx, t)
		}
	}
	return resp
}

func (s *Server) createTopic(ctx context.Context, r *Request, req *kmsg.CreateTopicsRequest, asked *kmsg.CreateTopicsRequestTopic, err error) kmsg.CreateTopicsResponseTopic {
	out := kmsg.NewCreateTopicsResponseTopic()
	out.Topic, out.NumPartitions, out.ReplicationFactor = asked.Topic, -1, -1
	var spec metadata.TopicSpec
	if err == nil {
		spec, err = s.spec(asked)
	}
	t := &metadata.Topic{Configs: spec.Configs}
	if err == nil && !req.ValidateOnly {
		t, err = s.create(ctx, spec)
	}
	if err != nil {
		out.ErrorCode, out.ErrorMessage = r.code(err), errorText(err)
		return out
	}
	out.TopicID, out.NumPartitions, out.ReplicationFactor = t.ID, spec.Partitions, spec.ReplicationFactor
	out.Configs = []kmsg.CreateTopicsResponseTopicConfig{}
	defs := configdef.Topics()
	for i := range defs {
		v := s.topicSettings(t.Configs, &defs[i])[0]
		c := kmsg.NewCreateTopicsResponseTopicConfig()
		c.Name, c.Value, c.Source = defs[i].Name, &v.value, int8(v.source)
		out.Configs = append(out.Configs, c)
	}
	return out
}

// create makes a topic and waits until our own view shows it, so that the
// client's next request to this broker finds it.
func (s *Server) create(ctx context.Context, spec metadata.TopicSpec) (*metadata.Topic, error) {
	t, rev, err := s.cfg.Admin.CreateTopic(ctx, spec)
	if err != nil {
		return nil, err
	}
	return t, s.cfg.View.WaitRevision(ctx, rev)
}

// spec checks what a client asks for and fills in the defaults.
func (s *Server) spec(asked *kmsg.CreateTopicsRequestTopic) (metadata.TopicSpec, error) {
	spec := metadata.TopicSpec{Name: asked.Topic, Partitions: asked.NumPartitions, ReplicationFactor: asked.ReplicationFactor}
	if err := s.freeName(asked.Topic); err != nil {
		return spec, err
	}
	if len(asked.ReplicaAssignment) > 0 {
		if asked.NumPartitions != -1 || asked.ReplicationFactor != -1 {
			return spec, refuse(kerr.InvalidRequest, "A manual partition assignment was specified, but the partition count or the replication factor was not set to -1.")
		}
		if err := s.assigned(asked, &spec); err != nil {
			return spec, err
		}
	}
	if spec.Partitions == -1 {
		spec.Partitions = s.cfg.DefaultPartitions
	}
	if spec.ReplicationFactor == -1 {
		spec.ReplicationFactor = s.cfg.DefaultReplicationFactor
	}
	switch {
	case spec.Partitions < 1:
		return spec, refuse(kerr.InvalidPartitions, "Number of partitions was set to an invalid non-positive value.")
	case spec.Partitions > s.cfg.TopicPartitionsMax:
		return spec, refuse(kerr.InvalidPartitions, "Number of partitions is %d, at most %d are allowed.", spec.Partitions, s.cfg.TopicPartitionsMax)
	case spec.ReplicationFactor < 1:
		return spec, refuse(kerr.InvalidReplicationFactor, "Replication factor must be larger than 0, or -1 to use the default value.")
	}
	var err error
	spec.Configs, err = askedConfigs(asked)
	return spec, err
}

func askedConfigs(asked *kmsg.CreateTopicsRequestTopic) (map[string]string, error) {
	configs := map[string]string{}
	for _, c := range asked.Configs {
		if c.Value == nil {
			return nil, fmt.Errorf("%w: Null value not supported for topic configs: %s", configdef.ErrInvalid, c.Name)
		}
		configs[c.Name] = *c.Value
	}
	return configs, configdef.ValidateTopic(configs)
}

// freeName checks that a topic of this name may be created.
func (s *Server) freeName(name string) error {
	if err := metadata.CheckTopicName(name); err != nil {
		return err
	}
	if _, ok := s.topic(name); ok {
		return refuse(kerr.TopicAlreadyExists, "Topic '%s' already exists.", name)
	}
	return s.collision(name)
}

// collision refuses a name that metric systems could not tell from a topic's.
func (s *Server) collision(name string) error {
	for _, t := range s.topics() {
		if metadata.CollidesWith(name, t.Name) {
			return refuse(kerr.InvalidTopicException, "Topic '%s' collides with existing topic: %s", name, t.Name)
		}
	}
	return nil
}

// assigned takes a manual assignment: its first replicas become the preferred
// leaders. The others are not used, as durability does not rest on brokers.
func (s *Server) assigned(asked *kmsg.CreateTopicsRequestTopic, spec *metadata.TopicSpec) error {
	byID := map[int32]metadata.Incarnation{}
	for _, b := range s.cfg.View.Brokers() {
		byID[b.ID] = b.Incarnation
	}
	leaders := map[int32]metadata.Incarnation{}
	for i := range asked.ReplicaAssignment {
		a := &asked.ReplicaAssignment[i]
		if _, twice := leaders[a.Partition]; twice {
			return refuse(kerr.InvalidReplicaAssignment, "Found multiple manual partition assignments for partition %d", a.Partition)
		}
		if err := checkReplicas(a.Replicas, byID); err != nil {
			return err
		}
		if len(a.Replicas) != len(asked.ReplicaAssignment[0].Replicas) {
			return refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment has replica lists of different lengths.")
		}
		leaders[a.Partition] = byID[a.Replicas[0]]
	}
	for p := range int32(len(asked.ReplicaAssignment)) {
		if _, ok := leaders[p]; !ok {
			return refuse(kerr.InvalidReplicaAssignment, "partitions should be a consecutive 0-based integer sequence")
		}
	}
	spec.Partitions = int32(len(asked.ReplicaAssignment))
	spec.ReplicationFactor = int16(len(asked.ReplicaAssignment[0].Replicas))
	spec.Preferred = func(p int32) metadata.Incarnation { return leaders[p] }
	return nil
}

func checkReplicas(replicas []int32, known map[int32]metadata.Incarnation) error {
	if len(replicas) == 0 {
		return refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes an empty replica list.")
	}
	seen := map[int32]bool{}
	for _, id := range replicas {
		if seen[id] {
			return refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes the broker %d more than once.", id)
		}
		if _, ok := known[id]; !ok {
			return refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes broker %d, but no such broker is registered.", id)
		}
		seen[id] = true
	}
	return nil
}

func (s *Server) createPartitions(ctx context.Context, r *Request, req *kmsg.CreatePartitionsRequest) kmsg.Response {
	ctx, cancel := adminTimeout(ctx, req.TimeoutMillis)
	defer cancel()
	resp := kmsg.NewPtrCreatePartitionsResponse()
	named := map[string]int{}
	for i := range req.Topics {
		named[req.Topics[i].Topic]++
	}
	for i := range req.Topics {
		t := &req.Topics[i]
		if named[t.Topic] == 0 {
			continue
		}
		var err error
		if named[t.Topic] > 1 {
			err = refuse(kerr.InvalidRequest, "Duplicate topic name.")
		} else {
			err = s.grow(ctx, t, req.ValidateOnly)
		}
		named[t.Topic] = 0
		out := kmsg.NewCreatePartitionsResponseTopic()
		out.Topic, out.ErrorCode, out.ErrorMessage = t.Topic, r.code(err), errorText(err)
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}

func (s *Server) grow(ctx context.Context, asked *kmsg.CreatePartitionsRequestTopic, validateOnly bool) error {
	t, ok := s.topic(asked.Topic)
	switch {
	case !ok:
		return errUnknownTopic
	case isInternal(t.Name):
		return refuse(kerr.InvalidTopicException, "The topic %s is internal.", t.Name)
	case asked.Count == t.Partitions:
		return refuse(kerr.InvalidPartitions, "Topic already has %d partition(s).", t.Partitions)
	case asked.Count < t.Partitions:
		return refuse(kerr.InvalidPartitions, "The topic %s currently has %d partition(s); %d would not be an increase.", t.Name, t.Partitions, asked.Count)
	case asked.Count > s.cfg.TopicPartitionsMax:
		return refuse(kerr.InvalidPartitions, "Number of partitions is %d, at most %d are allowed.", asked.Count, s.cfg.TopicPartitionsMax)
	case asked.Assignment != nil && len(asked.Assignment) != int(asked.Count-t.Partitions):
		return refuse(kerr.InvalidReplicaAssignment, "Attempted to add %d additional partition(s), but only %d assignment(s) were specified.", asked.Count-t.Partitions, len(asked.Assignment))
	}
	known := map[int32]metadata.Incarnation{}
	for _, b := range s.cfg.View.Brokers() {
		known[b.ID] = b.Incarnation
	}
	for i := range asked.Assignment {
		if err := checkReplicas(asked.Assignment[i].Replicas, known); err != nil {
			return err
		}
	}
	if validateOnly {
		return nil
	}
	rev, err := s.cfg.Admin.CreatePartitions(ctx, t.ID, asked.Count)
	if err != nil {
		return err
	}
	return s.cfg.View.WaitRevision(ctx, rev)
}

func (s *Server) deleteTopics(ctx context.Context, r *Request, req *kmsg.DeleteTopicsRequest) kmsg.Response {
	ctx, cancel := adminTimeout(ctx, req.TimeoutMillis)
	defer cancel()
	resp := kmsg.NewPtrDeleteTopicsResponse()
	asked := req.Topics
	if req.Version < 6 {
		asked = nil
		for i := range req.TopicNames {
			asked = append(asked, kmsg.DeleteTopicsRequestTopic{Topic: &req.TopicNames[i]})
		}
	}
	seen := map[metadata.TopicID]bool{}
	for i := range asked {
		a := &asked[i]
		out := kmsg.NewDeleteTopicsResponseTopic()
		out.Topic, out.TopicID = a.Topic, a.TopicID
		t, err := s.deletable(a)
		if err == nil {
			out.Topic, out.TopicID = &t.Name, t.ID
			if seen[t.ID] {
				err = refuse(kerr.InvalidRequest, "Duplicate topic.")
			} else {
				seen[t.ID] = true
				err = s.remove(ctx, t)
			}
		}
		out.ErrorCode, out.ErrorMessage = r.code(err), errorText(err)
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}

// deletable finds the topic that a client wants deleted, by name or by id.
func (s *Server) deletable(a *kmsg.DeleteTopicsRequestTopic) (*metadata.Topic, error) {
	byID := a.TopicID != [16]byte{}
	if byID == (a.Topic != nil) {
		return nil, refuse(kerr.InvalidRequest, "Name a topic by its name or by its id, not by both.")
	}
	name := ""
	if a.Topic != nil {
		name = *a.Topic
	}
	t, err := s.resolve(byID, a.TopicID, name)
	if err == nil && isInternal(t.Name) {
		return nil, refuse(kerr.InvalidTopicException, "The topic %s is internal.", t.Name)
	}
	return t, err
}

func (s *Server) remove(ctx context.Context, t *metadata.Topic) error {
	rev, err := s.cfg.Admin.DeleteTopic(ctx, t.ID)
	if err != nil {
		return err
	}
	return s.cfg.View.WaitRevision(ctx, rev)
}
