package consumer

import (
	"encoding/binary"
	"hash/fnv"
	"regexp"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemark-io/tidemark/metadata"
)

// Image is the topics that exist, as one version of the cluster's metadata shows
// them. It does not change.
type Image struct {
	version uint64
	topics  []*metadata.Topic // by name
	byID    map[metadata.TopicID]*metadata.Topic
}

// NewImage makes an image of topics sorted by name. A newer version is a larger
// one.
func NewImage(version uint64, topics []*metadata.Topic) *Image {
	img := &Image{version: version, topics: topics, byID: make(map[metadata.TopicID]*metadata.Topic, len(topics))}
	for _, t := range topics {
		img.byID[t.ID] = t
	}
	return img
}

// Version grows with every change.
func (img *Image) Version() uint64 { return img.version }

// Topic finds a topic by name.
func (img *Image) Topic(name string) (*metadata.Topic, bool) {
	i, ok := slices.BinarySearchFunc(img.topics, name, func(t *metadata.Topic, name string) int { return strings.Compare(t.Name, name) })
	if !ok {
		return nil, false
	}
	return img.topics[i], true
}

// TopicByID finds a topic by id.
func (img *Image) TopicByID(id metadata.TopicID) (*metadata.Topic, bool) {
	t, ok := img.byID[id]
	return t, ok
}

// digest tells two states of a set of topics apart: which exist, under which id,
// with how many partitions.
func (img *Image) digest(names []string) uint64 {
	h := fnv.New64a()
	var n [4]byte
	for _, name := range names {
		if t, ok := img.Topic(name); ok {
			_, _ = h.Write(t.ID[:])
			binary.BigEndian.PutUint32(n[:], uint32(t.Partitions))
			_, _ = h.Write(n[:])
		}
	}
	return h.Sum64()
}

// Matches is what a regular expression matches in a version of the image.
type Matches struct {
	Regex   string
	Version uint64
	Topics  []string // sorted
}

// regexBytesMax bounds a regular expression; matching costs time in proportion.
const regexBytesMax = 8 << 10

// Match matches all topic names as a whole, in time linear in their length; it
// is the costly part of a subscription and is not done under any lock. Internal
// topics are matched like others, as in Kafka.
func (img *Image) Match(regex string) (Matches, *kerr.Error) {
	m := Matches{Regex: regex, Version: img.version}
	if regex == "" {
		return m, nil
	}
	if len(regex) > regexBytesMax {
		return m, refuse(kerr.InvalidRegularExpression, "SubscribedTopicRegex is longer than %d bytes.", regexBytesMax)
	}
	// Checked by itself first: the wrapping could make a stray ")" look right.
	if _, err := regexp.Compile(regex); err != nil {
		return m, refuse(kerr.InvalidRegularExpression, "SubscribedTopicRegex `%s` is not a valid regular expression: %v.", regex, err)
	}
	re, err := regexp.Compile(`\A(?:` + regex + `)\z`)
	if err != nil {
		return m, refuse(kerr.InvalidRegularExpression, "SubscribedTopicRegex `%s` is not a valid regular expression: %v.", regex, err)
	}
	for _, t := range img.topics {
		if re.MatchString(t.Name) {
			m.Topics = append(m.Topics, t.Name)
		}
	}
	return m, nil
}
