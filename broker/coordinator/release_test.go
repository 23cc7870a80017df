package coordinator

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// With the store away a stop takes the time it is given and no more, and what
// could not be written is not confirmed.
func TestReleaseAllWithoutStore(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned()
		a.kv.Pause()
		committing := later(func() int16 { return a.commit("c", "t", 0, 1) })
		time.Sleep(100 * time.Millisecond) // in flight
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		begun := time.Now()
		if err := a.ReleaseAll(ctx); err == nil {
			t.Error("released without having written")
		}
		wantCode(t, <-committing, kerr.CoordinatorNotAvailable)
		a.stop()
		if took := time.Since(begun); took > 1100*time.Millisecond {
			t.Errorf("stopped after %v", took)
		}
	})
}

// A view that does not know a topic yet is no ground to tell a consumer that it
// never committed: it would reset its position.
func TestFetchWithAViewBehind(t *testing.T) {
	inBubble(t, func(t *testing.T, e *env) {
		a := e.owned()
		wantCode(t, a.commit("c", "t", 0, 7), nil)
		wantCode(t, a.commit("d", "u", 0, 7), nil)
		b := e.node(2)
		b.view.change(func() { delete(b.view.topics, "t") })
		e.assignAll(2)
		fetch := func(id string) *kmsg.OffsetFetchResponse {
			req := kmsg.NewPtrOffsetFetchRequest()
			req.Version, req.Group = 7, id
			topic := kmsg.NewOffsetFetchRequestTopic()
			topic.Topic, topic.Partitions = "t", []int32{0}
			req.Topics = append(req.Topics, topic)
			return b.OffsetFetch(context.Background(), someone, req)
		}
		wantCode(t, fetch("c").ErrorCode, kerr.CoordinatorLoadInProgress)
		// A group without offsets of unknown topics has none of this one.
		resp := fetch("d")
		wantCode(t, resp.ErrorCode, nil)
		if p := resp.Topics[0].Partitions[0]; p.Offset != -1 || p.ErrorCode != 0 {
			t.Errorf("%+v", p)
		}
		b.view.change(func() { b.view.topics["t"] = e.topics["t"] })
		wantFetch(t, b, "c", "t", 0, 7)
	})
}
