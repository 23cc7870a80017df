package mem_test

import (
	"testing"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/metadata/mem"
	"github.com/tidemark-io/tidemark/metadata/metatest"
)

func TestConformance(t *testing.T) {
	metatest.Run(t, func(t *testing.T) metadata.KV {
		c := mem.New().Client()
		t.Cleanup(func() { _ = c.Close() })
		return c
	})
}
