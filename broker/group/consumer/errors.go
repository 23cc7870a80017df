package consumer

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
)

// refuse is a Kafka error with a text for the client in its description.
func refuse(code *kerr.Error, format string, args ...any) *kerr.Error {
	e := *code
	e.Description = fmt.Sprintf(format, args...)
	return &e
}
