package s3

import (
	"context"
	"crypto/rand"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/minio/minio-go/v7/pkg/lifecycle"

	"github.com/tidemark-io/tidemark/tiering/object"
)

// lifecycleBytesMax bounds a lifecycle configuration; S3 allows 1,000 rules.
const lifecycleBytesMax = 4 << 20

// Check implements object.Checker. It also finds out that the endpoint can be
// reached, that the bucket exists, and that a missing key is told as missing.
func (s *Store) Check(ctx context.Context, prefixes []string, warn func(msg string, err error)) error {
	if err := s.checkBucket(ctx); err != nil {
		return fmt.Errorf("%s: %w", s, err)
	}
	if err := s.checkAbsence(ctx); err != nil {
		return fmt.Errorf("%s: %w", s, err)
	}
	if err := s.checkLifecycle(ctx, prefixes, warn); err != nil {
		return fmt.Errorf("%s: %w", s, err)
	}
	return nil
}

func (s *Store) checkBucket(ctx context.Context) error {
	resp, err := s.send(ctx, request{method: http.MethodHead})
	var e *Error
	switch {
	case err == nil:
		resp.discard()
		return nil
	case !errors.As(err, &e): // no answer
		return fmt.Errorf("the endpoint cannot be reached: %w", err)
	case e.Status == http.StatusNotFound:
		return fmt.Errorf("%w: the bucket does not exist", object.ErrRefused)
	case e.Status == http.StatusForbidden:
		return fmt.Errorf("access is denied (wrong credentials, or s3:ListBucket is not allowed): %w", err)
	}
	return err
}

// checkAbsence reads a key that does not exist. Without the permission to list,
// S3 answers 403 instead of 404, and a broker could not find the end of a log.
func (s *Store) checkAbsence(ctx context.Context) error {
	_, err := s.Get(ctx, "_probe/absent-"+rand.Text(), 0, 1)
	switch {
	case errors.Is(err, object.ErrNotFound):
		return nil
	case err == nil:
		return fmt.Errorf("%w: a key that was never written can be read", object.ErrRefused)
	case errors.Is(err, object.ErrRefused):
		return fmt.Errorf("a missing key is not told as missing (s3:GetObject and s3:ListBucket must be allowed): %w", err)
	}
	return err
}

func (s *Store) checkLifecycle(ctx context.Context, prefixes []string, warn func(string, error)) error {
	resp, err := s.send(ctx, request{method: http.MethodGet, query: url.Values{"lifecycle": {""}}})
	var e *Error
	if errors.As(err, &e) {
		switch {
		case e.Code == codeNoLifecycle:
			return nil
		case e.Status == http.StatusForbidden, e.Status == http.StatusNotImplemented, e.Status == http.StatusMethodNotAllowed:
			warn("lifecycle rules of the bucket cannot be read; make sure that none expires the log's objects", err)
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("read lifecycle rules: %w", err)
	}
	defer resp.discard()
	b, err := io.ReadAll(io.LimitReader(resp.Body, lifecycleBytesMax))
	if err != nil {
		return fmt.Errorf("read lifecycle rules: %w", err)
	}
	var rules lifecycle.Configuration
	if err := xml.Unmarshal(b, &rules); err != nil {
		return fmt.Errorf("read lifecycle rules: %w", err)
	}
	for _, prefix := range prefixes {
		if rule := expiring(rules.Rules, s.prefix+prefix); rule != nil {
			return fmt.Errorf("%w: lifecycle rule %q (prefix %q) would expire objects under %s",
				object.ErrRefused, rule.ID, rulePrefix(rule), s.prefix+prefix)
		}
	}
	return nil
}

// expiring returns a rule that would delete an object whose key begins with
// prefix. Rules that ask for tags match nothing here: our objects have none.
// Bounds on the size do not exempt a rule.
func expiring(rules []lifecycle.Rule, prefix string) *lifecycle.Rule {
	for i := range rules {
		r := &rules[i]
		p := rulePrefix(r)
		overlap := strings.HasPrefix(prefix, p) || strings.HasPrefix(p, prefix)
		if strings.EqualFold(r.Status, "Enabled") && overlap && !wantsTags(r) && deletes(r) {
			return r
		}
	}
	return nil
}

func rulePrefix(r *lifecycle.Rule) string {
	for _, p := range []string{r.RuleFilter.Prefix, r.RuleFilter.And.Prefix, r.Prefix} {
		if p != "" {
			return p
		}
	}
	return ""
}

func wantsTags(r *lifecycle.Rule) bool {
	return !r.RuleFilter.Tag.IsEmpty() || len(r.RuleFilter.And.Tags) > 0
}

// deletes reports whether the rule removes current versions. Removing old
// versions and delete markers takes nothing that is read.
func deletes(r *lifecycle.Rule) bool {
	return !r.Expiration.IsDaysNull() || !r.Expiration.IsDateNull() || r.Expiration.DeleteAll.IsEnabled() ||
		!r.AllVersionsExpiration.IsNull() && !r.AllVersionsExpiration.DeleteMarker.IsEnabled()
}
