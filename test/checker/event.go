package checker

// Type is what an event says of an operation.
type Type string

// An operation is invoked, and then at most once completed: ok, it happened; fail, it
// certainly did not and never will; info, nobody knows. An invocation that is
// never completed counts as info.
const (
	Invoke Type = "invoke"
	OK     Type = "ok"
	Fail   Type = "fail"
	Info   Type = "info"
)

// F is the kind of an operation.
type F string

// The kinds of operations.
const (
	FSend   F = "send"   // one record to one partition
	FPoll   F = "poll"   // what one call of a consumer returned; completed only, with its beginning in Begun
	FScan   F = "scan"   // a poll of a fresh consumer that reads the whole log after the last fault
	FAssign F = "assign" // a consumer chose its partitions and positions itself
	FSub    F = "subscribe"
	FReset  F = "reset" // a consumer's position jumped without its application asking for it
	FClose  F = "close" // a consumer reads no more
	FList   F = "lo"    // ListOffsets, all isolation levels of it
	FCommit F = "oc"    // OffsetCommit
	FFetch  F = "of"    // OffsetFetch
	FGroup  F = "group" // a member learnt of a stable generation and of its assignment
	FFault  F = "fault" // invoke: begins; ok: is over
	FHeal   F = "heal"  // every fault is over
	FTxn    F = "txn"   // the end of a transaction is asked for, and then it has ended
	FNote   F = "note"  // for people
)

// Isolation levels as they appear in Event.Isol.
const (
	ReadUncommitted = "ru"
	ReadCommitted   = "rc"
)

// Scopes of faults. A cluster goes on under a minority fault.
const (
	Minority = "minority"
	Majority = "majority"
	All      = "all"
)

// Event is one line of a history.
type Event struct {
	I     int64 `json:"i"`               // 1, 2, 3, …
	T     int64 `json:"t"`               // nanoseconds on the history's clock, never falling
	Call  int64 `json:"call,omitempty"`  // of a completion: I of its invocation
	Begun int64 `json:"begun,omitempty"` // of a completion: T of its invocation
	After int64 `json:"after,omitempty"` // of a poll, which has no invocation: I of the last event before it began

	Proc string `json:"proc,omitempty"` // who: a producer, a consumer, the nemesis
	Node string `json:"node,omitempty"` // the broker that answered, where it is known
	Type Type   `json:"type"`
	F    F      `json:"f"`

	TxID string `json:"txid,omitempty"`
	PID  int64  `json:"pid,omitempty"`
	Ep   int16  `json:"ep,omitempty"`
	Isol string `json:"isol,omitempty"`
	Mode Mode   `json:"mode,omitempty"`

	Ops []Op `json:"ops,omitempty"`

	Group  string `json:"group,omitempty"`
	Gen    int32  `json:"gen,omitempty"`
	Member string `json:"member,omitempty"`

	Fault  string   `json:"fault,omitempty"`
	Target []string `json:"target,omitempty"`
	Scope  string   `json:"scope,omitempty"`

	Err string `json:"err,omitempty"`
}

// Mode is how a client works, where that changes what may be expected of it.
// Several are joined with a comma.
type Mode string

// Modes of clients.
const (
	// Plain producers have no producer id: a resent record may be there twice.
	Plain Mode = "plain"
	// Assigned consumers choose their partitions themselves; nothing takes them away.
	Assigned Mode = "assigned"
	// Subscribed consumers are members of a group.
	Subscribed Mode = "subscribed"
	// Epochs are sent along with every request by this client, so that no broker
	// older than what it has seen may answer it.
	Epochs Mode = "epochs"
	// Direct consumers read nothing ahead: each poll is a fetch that began with it.
	Direct Mode = "direct"
	// Commits and Aborts are what was asked at the end of a transaction.
	Commits Mode = "commit"
	Aborts  Mode = "abort"
)

// Key names a partition.
type Key struct {
	Topic     string
	Partition int32
}

// Record is a sight of one record.
type Record struct {
	Offset int64
	Value  uint64
	Bad    string // the payload was not what Payload makes of any value, and why
}

// Marks are a partition's offsets as a broker told them; -1 where it did not.
type Marks struct {
	Start, LSO, HW int64
}

// NoMarks are told nothing.
var NoMarks = Marks{-1, -1, -1}

// Op is one partition's part of an event. Kind decides which fields count, and
// how it looks in JSON:
//
//	s  ["s","t-0",value,offset]          a send; offset -1 while unknown
//	f  ["f","t-0",value,offset]          the record that a send is a copy of
//	p  ["p",{"t-0":[[offset,value],…]}]  records read, in the order they came; a bad one is [offset,null,"why"]
//	w  ["w","t-0",start,lso,hw]          watermarks; -1 where not told
//	c  ["c","t-0",offset]                a committed offset, written or read; -1 is none
//	a  ["a","t-0",position]              an assigned partition; -1 lets the client find the position
//	r  ["r","t-0",from,to]               a jump of a position
type Op struct {
	Kind byte
	Key  Key

	Value   uint64   // s, f
	Offset  int64    // s, f, c, a; r: from
	To      int64    // r
	Records []Record // p
	Marks   Marks    // w
}
