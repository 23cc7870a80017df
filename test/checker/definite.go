package checker

import (
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
)

// judged are the refusals that depend on the bytes of the request alone. However
// often it was tried before, no attempt can have succeeded.
var judged = map[*kerr.Error]bool{
	kerr.MessageTooLarge:             true,
	kerr.RecordListTooLarge:          true,
	kerr.InvalidRecord:               true,
	kerr.InvalidTimestamp:            true,
	kerr.InvalidRequiredAcks:         true,
	kerr.InvalidTopicException:       true,
	kerr.UnsupportedVersion:          true,
	kerr.UnsupportedCompressionType:  true,
	kerr.UnsupportedForMessageFormat: true,
	kerr.OffsetMetadataTooLarge:      true,
	kerr.InvalidGroupID:              true,
	kerr.InvalidCommitOffsetSize:     true,
}

// refused are the answers that promise that this attempt had no effect. An
// attempt before it may have had one.
var refused = map[*kerr.Error]bool{
	kerr.CorruptMessage:                     true,
	kerr.TopicAuthorizationFailed:           true,
	kerr.GroupAuthorizationFailed:           true,
	kerr.ClusterAuthorizationFailed:         true,
	kerr.TransactionalIDAuthorizationFailed: true,
	kerr.UnknownTopicOrPartition:            true,
	kerr.UnknownTopicID:                     true,
	kerr.InvalidProducerEpoch:               true,
	kerr.ProducerFenced:                     true,
	kerr.OutOfOrderSequenceNumber:           true,
	// Of commits:
	kerr.IllegalGeneration: true,
	kerr.UnknownMemberID:   true,
	kerr.FencedInstanceID:  true,
	kerr.FencedMemberEpoch: true,
	kerr.StaleMemberEpoch:  true,
}

// Definite tells whether err is an answer that promises that the write was not
// made and never will be, given what came before: with retried, an attempt whose
// outcome nobody knows may precede it, as in any client that retries by itself.
//
// Everything else is unknown: timeouts, lost connections, NOT_LEADER (the broker
// may have been deposed with the write already on its way), errors of
// coordinators that move, and whatever is not an answer of a broker at all.
func Definite(err error, retried bool) bool {
	var code *kerr.Error
	if !errors.As(err, &code) {
		return false
	}
	return judged[code] || !retried && refused[code]
}

// outcome is the type of the completion of a write that ended with err.
func outcome(err error, retried bool) Type {
	switch {
	case err == nil:
		return OK
	case Definite(err, retried):
		return Fail
	}
	return Info
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
