package coordinator

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
)

// code is the wire form of an error, or of none.
func code(err *kerr.Error) int16 {
	if err == nil {
		return 0
	}
	return err.Code
}

// checkGroupID refuses ids that membership cannot work with, and such as would
// not fit keys. Offsets may be kept under the empty id, as old clients do.
func checkGroupID(id string, emptyToo bool) *kerr.Error {
	if id == "" && !emptyToo || len(id) > idBytesMax || 3*len(id) > idBytesMax && len(escape(id)) > idBytesMax {
		return kerr.InvalidGroupID
	}
	return nil
}

// newMemberID makes an id that is recognisable and never used before: Kafka's
// form, the client's or instance's name and a random UUID.
func newMemberID(client ClientInfo, instance *string) string {
	name := client.ID
	if instance != nil {
		name = *instance
	}
	if len(name) > nameBytesMax {
		name = strings.ToValidUTF8(name[:nameBytesMax], "")
	}
	var u [16]byte
	if _, err := rand.Read(u[:]); err != nil {
		panic(err) // crypto/rand does not fail on supported systems
	}
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	return fmt.Sprintf("%s-%x-%x-%x-%x-%x", name, u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// host is the client's address as Kafka shows it.
func (c ClientInfo) host() string {
	if strings.HasPrefix(c.Host, "/") {
		return c.Host
	}
	return "/" + c.Host
}

// await waits for the answer to a parked request, for as long as its
// connection lives.
func await[T any](ctx context.Context, ch <-chan T) (T, bool) {
	select {
	case v := <-ch:
		return v, true
	case <-ctx.Done():
		var zero T
		return zero, false
	}
}
