// Package failpoint names the places on the paths of a write, a hand-over and a
// group commit where a test may have the program die, stop or fail.
//
// A program that is built without the tag failpoint has none of this: Hit is a
// function that returns nil, which the compiler removes together with whatever
// would be done about an error. Built with it, a point acts when it is armed:
// by the environment, from the start of the process,
//
//	TIDEMARK_FAILPOINTS="before_put=kill,skip=3;after_txn=error,count=2"
//
// or while it runs, by a file of the point's name in the directory
// TIDEMARK_FAILPOINT_DIR, with the same words in it ("kill,skip=3"); Arm writes
// it. A point that has acted as often as asked is disarmed and its file removed,
// so that the process that comes next is not hit again, and a line in the file
// "fired" of that directory tells of every time; Fired reads them.
package failpoint

import (
	"errors"
	"slices"
)

// Point is the name of a place.
type Point string

// The points. Before and after are those of the call the point is named after:
// an error at "before" is a call that failed without effect, at "after" one that
// had its effect and whose answer was lost. Points of slots and records are hit
// for all kinds of them.
const (
	AfterAppend Point = "after_append" // a batch has its offset; error: the request times out, the batch commits
	BeforePut   Point = "before_put"   // of a slot; error: the attempt failed, the same bytes are tried again
	AfterPut    Point = "after_put"    // error: the answer was lost
	BeforeHW    Point = "before_hw"    // a slot and all before it are durable, nobody knows; error: the incarnation is over
	BeforeReply Point = "before_reply" // of a produce; error: the connection is cut without an answer
	AfterReply  Point = "after_reply"  // error: the connection is cut behind the answer

	BeforePage    Point = "before_page"    // of the manifest; error: the checkpoint fails
	CheckpointMid Point = "checkpoint_mid" // it is in the bucket and not yet recorded; error: the checkpoint fails
	BeforeTxn     Point = "before_txn"     // that records a checkpoint in etcd
	AfterTxn      Point = "after_txn"
	BeforeEnd     Point = "before_end" // the transaction that records the end of a chain
	AfterEnd      Point = "after_end"
	BeforeClaim   Point = "before_claim" // the transaction that appends to owner lists
	AfterClaim    Point = "after_claim"

	BeforeRelease Point = "before_release" // the record; error: the release fails
	AfterRelease  Point = "after_release"  // it is committed; error: the release seems to have failed
	BeforeFence   Point = "before_fence"   // the PUT; error: the attempt failed, it is tried again
	AfterFence    Point = "after_fence"    // error: the answer was lost
	AfterSeal     Point = "after_seal"     // the end is recorded, nothing replayed; error: the recovery fails
	BeforeOpen    Point = "before_open"    // the record; error: the partition is not led yet
	AfterOpen     Point = "after_open"     // it is committed; error: the incarnation is over
	BeforeClose   Point = "before_close"   // everything is committed and checkpointed; error: closing fails

	BeforeSegment Point = "before_segment" // the PUT; error: tiering fails, it is tried again
	AfterSegment  Point = "after_segment"  // it is in the bucket and no manifest names it; error: the same
	AfterAdd      Point = "after_add"      // it takes the place of its extents; error: nothing more is tiered now
	BeforeTrim    Point = "before_trim"    // the record; error: nothing is deleted yet
	AfterTrim     Point = "after_trim"     // the mark is published; error: the same
	BeforeDelete  Point = "before_delete"  // of objects that nobody needs; error: it is tried again

	GroupBeforeTxn   Point = "group_before_txn" // of group state and offsets
	GroupAfterTxn    Point = "group_after_txn"
	GroupBeforeReply Point = "group_before_reply" // of an offset commit that is stored; error: COORDINATOR_NOT_AVAILABLE

	TxnPrepared Point = "txn_prepared" // the outcome is stored, no marker sent; error: it is tried again
	TxnMarked   Point = "txn_marked"   // every marker is durable, the end is not stored; error: the same
)

// Points are all of them, in the order of their paths.
func Points() []Point { return slices.Clone(points) }

var points = []Point{
	AfterAppend, BeforePut, AfterPut, BeforeHW, BeforeReply, AfterReply,
	BeforePage, CheckpointMid, BeforeTxn, AfterTxn, BeforeEnd, AfterEnd, BeforeClaim, AfterClaim,
	BeforeRelease, AfterRelease, BeforeFence, AfterFence, AfterSeal, BeforeOpen, AfterOpen, BeforeClose,
	BeforeSegment, AfterSegment, AfterAdd, BeforeTrim, AfterTrim, BeforeDelete,
	GroupBeforeTxn, GroupAfterTxn, GroupBeforeReply, TxnPrepared, TxnMarked,
}

// ErrInjected is wrapped by every error that a point makes.
var ErrInjected = errors.New("injected at a failpoint")

// The environment of a process that is built with failpoints.
const (
	EnvArmed = "TIDEMARK_FAILPOINTS"
	EnvDir   = "TIDEMARK_FAILPOINT_DIR"
)
