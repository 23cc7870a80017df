package broker

import (
	"cmp"
	"context"
	"log/slog"
	"regexp"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// softwareText is what KIP-511 allows for a client's software name and version.
var softwareText = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?$`)

// apiVersions answers what is served. A version from the future gets the answer
// of version 0 with UNSUPPORTED_VERSION, which every client can read (KIP-511).
func (s *Server) apiVersions(_ context.Context, r *Request) finish {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.Version = r.Version
	req, ok := r.Body.(*kmsg.ApiVersionsRequest)
	if !ok {
		resp.Version = 0
		resp.ErrorCode = r.note(kerr.UnsupportedVersion.Code)
	} else {
		resp.ErrorCode = r.note(s.introduce(r, req))
	}
	if ok && resp.ErrorCode != 0 {
		return answer(resp)
	}
	for _, a := range s.apis {
		k := kmsg.NewApiVersionsResponseApiKey()
		k.ApiKey, k.MinVersion, k.MaxVersion = a.key, a.min, a.max
		resp.ApiKeys = append(resp.ApiKeys, k)
	}
	s.addFeatures(resp)
	slices.SortFunc(resp.ApiKeys, func(a, b kmsg.ApiVersionsResponseApiKey) int { return cmp.Compare(a.ApiKey, b.ApiKey) })
	return answer(resp)
}

// feature is one of Kafka's features that a cluster agrees on. Every broker of
// ours has the same, so what is supported is what is finalised.
type feature struct {
	name  string
	level int16
}

// features are those that clients look at.
func (s *Server) features() []feature {
	list := []feature{{"group.version", 1}} // KIP-848, with ConsumerGroupHeartbeat
	if s.cfg.Transactions != nil {
		list = append(list, feature{"transaction.version", 2}) // KIP-890: epochs are raised by EndTxn
	}
	return list
}

// addFeatures tells the features. Before version 4 no client could read a range
// that begins at 0, so those are left out there, as Kafka does (KIP-1022).
func (s *Server) addFeatures(resp *kmsg.ApiVersionsResponse) {
	resp.FinalizedFeaturesEpoch = 1
	for _, f := range s.features() {
		if resp.Version >= 4 {
			s := kmsg.NewApiVersionsResponseSupportedFeature()
			s.Name, s.MinVersion, s.MaxVersion = f.name, 0, f.level
			resp.SupportedFeatures = append(resp.SupportedFeatures, s)
		}
		l := kmsg.NewApiVersionsResponseFinalizedFeature()
		l.Name, l.MinVersionLevel, l.MaxVersionLevel = f.name, f.level, f.level
		resp.FinalizedFeatures = append(resp.FinalizedFeatures, l)
	}
}

// introduce takes in what a client says of itself and of whom it thinks it
// talks to (KIP-511, KIP-1242), and returns the error code to answer.
func (s *Server) introduce(r *Request, req *kmsg.ApiVersionsRequest) int16 {
	if req.Version < 3 {
		return 0
	}
	if !softwareText.MatchString(req.ClientSoftwareName) || !softwareText.MatchString(req.ClientSoftwareVersion) {
		return kerr.InvalidRequest.Code
	}
	if log := r.conn.log; log.Enabled(context.Background(), slog.LevelDebug) {
		log.Debug("client introduced itself", keyClient, r.Client.ID, keySoftware, req.ClientSoftwareName, keySoftwareVer, req.ClientSoftwareVersion)
	}
	if req.Version < 5 || req.ClusterID == nil && req.NodeID == -1 {
		return 0
	}
	switch {
	case req.ClusterID == nil || req.NodeID == -1:
		return kerr.InvalidRequest.Code
	case *req.ClusterID != s.cfg.ClusterID || req.NodeID != s.id():
		return kerr.RebootstrapRequired.Code
	}
	return 0
}
