package workload

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// poolBytes is how much payload is made before a run. Values are cut from it in
// turn; it is longer than any window a compressor looks back over, so that
// values do not repeat within an object.
const poolBytes = 64 << 20

var pools = map[string]func() []byte{
	"random": sync.OnceValue(randomPool),
	"json":   sync.OnceValue(jsonPool),
}

// Payload hands out record values.
type Payload struct {
	pool []byte
	size int
	at   int
}

// NewPayload is a source of values of a kind, from a place of its own in the
// pool that the seed decides.
func NewPayload(kind string, size int, seed uint64) *Payload {
	pool := pools[kind]()
	at := rand.New(rand.NewPCG(seed, 3)).IntN(len(pool) - size)
	return &Payload{pool: pool, size: size, at: at}
}

// Next is a value; it must not be changed.
func (p *Payload) Next() []byte {
	if p.at+p.size > len(p.pool) {
		p.at = 0
	}
	p.at += p.size
	return p.pool[p.at-p.size : p.at : p.at]
}

// randomPool is bytes that no compression makes smaller.
func randomPool() []byte {
	b := make([]byte, poolBytes)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// jsonPool is what services log: lines of JSON with skewed words, identifiers
// that are random and times that move on. General compressors make a fifth to a
// quarter of it.
func jsonPool() []byte {
	rng := rand.New(rand.NewPCG(7, 7))
	zipf := rand.NewZipf(rng, 1.2, 4, 4095)
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	buf := bytes.NewBuffer(make([]byte, 0, poolBytes+1024))
	for buf.Len() < poolBytes {
		at = at.Add(time.Duration(rng.ExpFloat64() * float64(3*time.Millisecond)))
		user := zipf.Uint64()
		fmt.Fprintf(buf, `{"time":%q,"level":%q,"service":"svc-%02d","host":"ip-10-0-%d-%d","trace":"%016x","user":%d,`+
			`"method":%q,"path":"/v1/%s/%d","status":%d,"bytes":%d,"seconds":%.4f,"agent":%q}`+"\n",
			at.Format(time.RFC3339Nano), pick(rng, levels), user%23, user%7, user%251, rng.Uint64(), 100_000+user,
			pick(rng, methods), pick(rng, resources), rng.IntN(1_000_000), pick(rng, statuses), rng.IntN(1<<16),
			rng.ExpFloat64()/20, agents[user%uint64(len(agents))])
	}
	return buf.Bytes()[:poolBytes]
}

var (
	levels    = []string{"info", "info", "info", "info", "info", "info", "debug", "warn", "error"}
	methods   = []string{"GET", "GET", "GET", "GET", "POST", "PUT", "DELETE"}
	resources = []string{"orders", "carts", "items", "users", "sessions", "payments", "shipments", "reviews"}
	statuses  = []int{200, 200, 200, 200, 200, 201, 204, 304, 400, 404, 500}
	agents    = []string{
		"Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/140.0", "shop-android/8.14.2 (Android 15; Pixel 9)",
		"shop-ios/8.14.0 (iPhone17,2; iOS 19.1)", "okhttp/5.1.0", "Go-http-client/2.0",
	}
)

func pick[T any](rng *rand.Rand, from []T) T { return from[rng.IntN(len(from))] }
