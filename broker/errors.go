package broker

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemark-io/tidemark/broker/coordinator"
	"github.com/tidemark-io/tidemark/broker/internal/configdef"
	"github.com/tidemark-io/tidemark/broker/internal/fetchsession"
	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering"
	"github.com/tidemark-io/tidemark/tiering/batch"
)

// codeError is a Kafka error code chosen where the error arose, with the text
// that the client is shown.
type codeError struct {
	code *kerr.Error
	text string
}

func (e *codeError) Error() string {
	if e.text == "" {
		return e.code.Message
	}
	return e.text
}

// refuse makes an error of a code and a text for the client.
func refuse(code *kerr.Error, format string, args ...any) error {
	return &codeError{code: code, text: fmt.Sprintf(format, args...)}
}

// codes is the one place where Go errors meet Kafka's error codes. Whether the
// code is retriable decides whether a client tries again or its application
// fails. Order matters where an error wraps several.
var codes = []struct {
	err  error
	code *kerr.Error
}{
	// Leadership is elsewhere or uncertain: refresh metadata and try again.
	{tiering.ErrNotLeader, kerr.NotLeaderForPartition},
	{tiering.ErrFenced, kerr.NotLeaderForPartition},
	{tiering.ErrOffsetOutOfRange, kerr.OffsetOutOfRange},
	// Producer state: the client's idempotence logic acts on these.
	{tiering.ErrOutOfOrderSequence, kerr.OutOfOrderSequenceNumber},
	{tiering.ErrInvalidProducerEpoch, kerr.InvalidProducerEpoch},
	{tiering.ErrInvalidTxnState, kerr.InvalidTxnState},
	{tiering.ErrCoordinatorFenced, kerr.TransactionCoordinatorFenced},
	// Retriable, and no reason to look for another leader.
	{tiering.ErrTooManyTxns, kerr.NotEnoughReplicas},
	// The store is away or slow: retriable.
	{tiering.ErrTimedOut, kerr.RequestTimedOut},
	{tiering.ErrStoreUnavailable, kerr.KafkaStorageError},
	// Damaged or missing data is an alarm for people. KAFKA_STORAGE_ERROR
	// keeps consumers where they are; CORRUPT_MESSAGE or OFFSET_OUT_OF_RANGE
	// would make some of them skip records.
	{tiering.ErrCorrupt, kerr.KafkaStorageError},
	{tiering.ErrDataLoss, kerr.KafkaStorageError},
	// Nobody coordinates the group at the moment: retriable.
	{coordinator.ErrNotAvailable, kerr.CoordinatorNotAvailable},
	// Batches. INVALID_RECORD and INVALID_TIMESTAMP are final, a checksum
	// mismatch may have happened on the way and is retriable, as in Kafka.
	{batch.ErrCRC, kerr.CorruptMessage},
	{batch.ErrTooLarge, kerr.MessageTooLarge},
	{batch.ErrTimestamp, kerr.InvalidTimestamp},
	{batch.ErrCodec, kerr.UnsupportedCompressionType},
	{batch.ErrMagic, kerr.InvalidRecord},
	{batch.ErrShort, kerr.InvalidRecord},
	{batch.ErrInvalid, kerr.InvalidRecord},
	// Fetch sessions: the client answers each with a full request.
	{fetchsession.ErrNotFound, kerr.FetchSessionIDNotFound},
	{fetchsession.ErrEpoch, kerr.InvalidFetchSessionEpoch},
	{fetchsession.ErrTopicIDs, kerr.FetchSessionTopicIDError},
	// Metadata. An unanswered write may have been applied: the client that
	// asks again gets TOPIC_ALREADY_EXISTS, as with Kafka.
	{metadata.ErrTopicExists, kerr.TopicAlreadyExists},
	{metadata.ErrUnknownTopic, kerr.UnknownTopicOrPartition},
	{metadata.ErrInvalidPartitions, kerr.InvalidPartitions},
	{metadata.ErrInvalidName, kerr.InvalidTopicException},
	{configdef.ErrInvalid, kerr.InvalidConfig},
	{metadata.ErrUnavailable, kerr.RequestTimedOut},
	{metadata.ErrTooLarge, kerr.PolicyViolation},
	{metadata.ErrNoSpace, kerr.KafkaStorageError},
	{context.DeadlineExceeded, kerr.RequestTimedOut},
	{context.Canceled, kerr.RequestTimedOut},
}

// kafkaCode is the code for err: 0 for nil, UNKNOWN_SERVER_ERROR for an error
// that nobody foresaw, which the caller logs.
func kafkaCode(err error) int16 {
	if err == nil {
		return 0
	}
	var chosen *codeError
	if errors.As(err, &chosen) {
		return chosen.code.Code
	}
	var direct *kerr.Error
	if errors.As(err, &direct) {
		return direct.Code
	}
	for i := range codes {
		if errors.Is(err, codes[i].err) {
			return codes[i].code.Code
		}
	}
	return kerr.UnknownServerError.Code
}

// errorText is what a client may read about err, nil for none.
func errorText(err error) *string {
	if err == nil {
		return nil
	}
	text := err.Error()
	if kafkaCode(err) == kerr.UnknownServerError.Code {
		text = kerr.UnknownServerError.Message // the inner text is for our log
	}
	return &text
}

// class sorts a code for the metrics: "none", "retriable" or "fatal".
func class(code int16) string {
	switch {
	case code == 0:
		return "none"
	case kerr.IsRetriable(kerr.ErrorForCode(code)):
		return "retriable"
	}
	return "fatal"
}
