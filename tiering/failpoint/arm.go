package failpoint

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Action is what an armed point does.
type Action string

// Actions.
const (
	Kill  Action = "kill"  // SIGKILL to the own process
	Stop  Action = "stop"  // SIGSTOP to the own process; whoever armed it sends SIGCONT
	Error Action = "error" // Hit returns an error
)

// Actions are all of them.
func Actions() []Action { return []Action{Kill, Stop, Error} }

// Spec arms a point.
type Spec struct {
	Action Action
	Skip   int // hits that pass before the first that acts
	Count  int // hits that act; 0 is 1
}

func (s Spec) String() string {
	return fmt.Sprintf("%s,skip=%d,count=%d", s.Action, s.Skip, max(s.Count, 1))
}

// ParseSpec reads "action[,skip=n][,count=n]".
func ParseSpec(text string) (Spec, error) {
	words := strings.Split(strings.TrimSpace(text), ",")
	s := Spec{Action: Action(words[0]), Count: 1}
	if !slices.Contains(Actions(), s.Action) {
		return s, fmt.Errorf("failpoint action %q is none of %v", words[0], Actions())
	}
	for _, w := range words[1:] {
		name, value, _ := strings.Cut(w, "=")
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 {
			return s, fmt.Errorf("failpoint setting %q", w)
		}
		switch name {
		case "skip":
			s.Skip = n
		case "count":
			s.Count = max(n, 1)
		default:
			return s, fmt.Errorf("failpoint setting %q", w)
		}
	}
	return s, nil
}

// parseArmed reads "point=spec;point=spec".
func parseArmed(text string) (map[Point]Spec, error) {
	armed := make(map[Point]Spec)
	for part := range strings.SplitSeq(text, ";") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, spec, ok := strings.Cut(part, "=")
		if !ok || !slices.Contains(points, Point(name)) {
			return nil, fmt.Errorf("there is no failpoint %q", name)
		}
		var err error
		if armed[Point(name)], err = ParseSpec(spec); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return armed, nil
}

// Arm arms a point of the process whose TIDEMARK_FAILPOINT_DIR is dir, or of the
// next one. A point that is armed already is armed anew.
func Arm(dir string, p Point, s Spec) error {
	if !slices.Contains(points, p) {
		return fmt.Errorf("there is no failpoint %q", p)
	}
	tmp := filepath.Join(dir, "."+string(p))
	if err := os.WriteFile(tmp, []byte(s.String()), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, string(p)))
}

// Disarm disarms a point.
func Disarm(dir string, p Point) error {
	if err := os.Remove(filepath.Join(dir, string(p))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// firedFile collects a line "point action" for every time a point acted.
const firedFile = "fired"

// Fired are the points that acted in dir, in order, with repetitions.
func Fired(dir string) ([]Point, error) {
	f, err := os.Open(filepath.Join(dir, firedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var fired []Point
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, _, _ := strings.Cut(lines.Text(), " ")
		fired = append(fired, Point(name))
	}
	return fired, lines.Err()
}
