// Package seeded holds bugs that are known, one behind each build tag, to test
// the testers: a suite that does not find them would not find the unknown ones.
//
// Each is a constant that product code asks in the one place where the bug
// lives, as in
//
//	if seeded.AckBeforeDurable {
//		f.finish(nil)
//	}
//
// They are false unless the program is built with the bug's tag, and then the
// compiler leaves nothing of them. The numbers are those of the reliability
// plan; more than one tag may be given.
package seeded

// Bug is one seeded bug.
type Bug struct {
	ID  string // B1
	Tag string // seeded_b1
	// On tells whether this program has it.
	On bool
	// What is wrong with a program that has it.
	What string
}

// Bugs are all that can be seeded.
func Bugs() []Bug {
	return []Bug{
		{"B1", "seeded_b1", FlushFateShared, "of all who wait for a flush that failed, only the first is told; the others are acknowledged"},
		{"B2", "seeded_b2", KeyFromBaseOffset, "a stored extent is told by its base offset alone, so that extents of different writers pass for each other"},
		{"B3", "seeded_b3", CommitWithoutRace, "a slot that is taken counts as taken by the own bytes, whatever is in it: a fence stops nobody"},
		{"B4", "seeded_b4", GroupUnfenced, "group state and offsets are written whoever coordinates the group by now"},
		{"B5", "seeded_b5", AckBeforeDurable, "producers are acknowledged when the upload begins"},
		{"B6", "seeded_b6", AnyFirstSequence, "a producer never seen before may begin with any sequence number"},
		{"B7", "seeded_b7", LastStableIsHigh, "the last stable offset is the high watermark: readers of committed records see open transactions"},
		{"B9", "seeded_b9", MarkerNotAwaited, "a transaction marker counts as written before it is durable"},
		{"B10", "seeded_b10", OutOfRangeUnproven, "a deposed leader answers OFFSET_OUT_OF_RANGE without a look at its chain"},
	}
}
