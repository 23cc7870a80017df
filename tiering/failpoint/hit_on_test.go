//go:build failpoint

package failpoint

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"
)

func testArmory(t *testing.T, env string) (*armory, *[]Action) {
	specs, err := parseArmed(env)
	if err != nil {
		t.Fatal(err)
	}
	var acted []Action
	a := &armory{dir: t.TempDir(), armed: make(map[Point]*Spec), files: make(map[Point]*armedFile),
		act: func(x Action) { acted = append(acted, x) }}
	for p, s := range specs {
		a.armed[p] = &s
	}
	return a, &acted
}

// pattern hits p n times and tells which hits returned an error.
func pattern(a *armory, p Point, n int) string {
	var s []byte
	for range n {
		if err := a.hit(p); errors.Is(err, ErrInjected) {
			s = append(s, 'x')
		} else {
			s = append(s, '.')
		}
	}
	return string(s)
}

func TestEnvironmentArms(t *testing.T) {
	a, _ := testArmory(t, "before_put=error,skip=2,count=3")
	if got := pattern(a, BeforePut, 8); got != "..xxx..." {
		t.Error(got)
	}
	if got := pattern(a, AfterPut, 3); got != "..." {
		t.Error(got)
	}
	if fired, err := Fired(a.dir); err != nil || !slices.Equal(fired, []Point{BeforePut, BeforePut, BeforePut}) {
		t.Errorf("%v, %v", fired, err)
	}
}

func TestFilesArmWhileItRuns(t *testing.T) {
	a, acted := testArmory(t, "")
	if got := pattern(a, AfterTxn, 2); got != ".." {
		t.Error(got)
	}
	arm := func(s Spec) {
		if err := Arm(a.dir, AfterTxn, s); err != nil {
			t.Fatal(err)
		}
	}
	arm(Spec{Action: Error, Skip: 1})
	if got := pattern(a, AfterTxn, 4); got != ".x.." {
		t.Error(got)
	}
	arm(Spec{Action: Error, Count: 2})
	if got := pattern(a, AfterTxn, 4); got != "xx.." {
		t.Error(got)
	}
	arm(Spec{Action: Error, Skip: 1, Count: 5})
	pattern(a, AfterTxn, 2)
	arm(Spec{Action: Error, Skip: 1})
	if got := pattern(a, AfterTxn, 3); got != ".x." {
		t.Errorf("armed anew: %s", got)
	}
	arm(Spec{Action: Kill})
	if got := pattern(a, AfterTxn, 2); got != ".." || !slices.Equal(*acted, []Action{Kill}) {
		t.Error(got, *acted)
	}
	arm(Spec{Action: Kill})
	if err := Disarm(a.dir, AfterTxn); err != nil {
		t.Fatal(err)
	}
	pattern(a, AfterTxn, 2)
	if len(*acted) != 1 {
		t.Error("a disarmed point acted")
	}
	if fired, _ := Fired(a.dir); len(fired) != 5+1 {
		t.Errorf("fired: %v", fired)
	}
}

func TestHook(t *testing.T) {
	undo := Hook(func(p Point) error {
		if p == BeforeHW {
			return ErrInjected
		}
		return nil
	})
	if Hit(BeforeHW) == nil || Hit(BeforePut) != nil {
		t.Error("the hook was not asked")
	}
	undo()
	if Hit(BeforeHW) != nil {
		t.Error("the hook is still there")
	}
}

// TestSignals runs itself as a process that dies, or stops, of a point.
func TestSignals(t *testing.T) {
	if os.Getenv("FAILPOINT_CHILD") != "" {
		_ = Hit(BeforePut)
		os.Exit(7)
	}
	dir := t.TempDir()
	child := func() *exec.Cmd {
		cmd := exec.Command(os.Args[0], "-test.run=^TestSignals$")
		cmd.Env = append(os.Environ(), "FAILPOINT_CHILD=1", EnvDir+"="+dir)
		return cmd
	}
	if err := Arm(dir, BeforePut, Spec{Action: Kill}); err != nil {
		t.Fatal(err)
	}
	cmd := child()
	_ = cmd.Run()
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != syscall.SIGKILL {
		t.Errorf("armed to kill: %v", cmd.ProcessState)
	}
	cmd = child()
	_ = cmd.Run()
	if cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("the process after: %v", cmd.ProcessState)
	}
	if err := Arm(dir, BeforePut, Spec{Action: Stop}); err != nil {
		t.Fatal(err)
	}
	cmd = child()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var ws syscall.WaitStatus
		if pid, _ := syscall.Wait4(cmd.Process.Pid, &ws, syscall.WUNTRACED|syscall.WNOHANG, nil); pid > 0 && ws.Stopped() {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("armed to stop, and it did not")
		}
	}
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("resumed: %v", cmd.ProcessState)
	}
}
