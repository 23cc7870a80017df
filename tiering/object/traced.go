package object

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

const (
	attrKey     = attribute.Key("tidemark.store.key")
	attrBytes   = attribute.Key("tidemark.store.bytes")
	attrPos     = attribute.Key("tidemark.store.position")
	attrOutcome = attribute.Key("tidemark.store.outcome")
)

type traced struct {
	store  Store
	tracer trace.Tracer
}

// Traced opens a span around every request. Without a tracer it returns store
// itself, so that tracing costs nothing where none is configured.
func Traced(store Store, tracer trace.Tracer) Store {
	if tracer == nil {
		return store
	}
	return &traced{store: store, tracer: tracer}
}

func (s *traced) Unwrap() Store { return s.store }

func (s *traced) start(ctx context.Context, op, key string) (context.Context, trace.Span) {
	return s.tracer.Start(ctx, "store."+op,
		trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attrKey.String(key)))
}

func end(span trace.Span, err error) {
	span.SetAttributes(attrOutcome.String(Outcome(err)))
	if failed(err) {
		span.RecordError(err)
		span.SetStatus(codes.Error, Outcome(err))
	}
	span.End()
}

func (s *traced) Create(ctx context.Context, key string, data ...[]byte) error {
	ctx, span := s.start(ctx, OpCreate, key)
	var n int64
	for _, d := range data {
		n += int64(len(d))
	}
	span.SetAttributes(attrBytes.Int64(n))
	err := s.store.Create(ctx, key, data...)
	end(span, err)
	return err
}

func (s *traced) Get(ctx context.Context, key string, pos, length int64) ([]byte, error) {
	ctx, span := s.start(ctx, OpGet, key)
	b, err := s.store.Get(ctx, key, pos, length)
	span.SetAttributes(attrPos.Int64(pos), attrBytes.Int(len(b)))
	end(span, err)
	return b, err
}

func (s *traced) Delete(ctx context.Context, key string) error {
	ctx, span := s.start(ctx, OpDelete, key)
	err := s.store.Delete(ctx, key)
	end(span, err)
	return err
}

func (s *traced) List(ctx context.Context, prefix, after string, limit int) ([]Info, error) {
	ctx, span := s.start(ctx, OpList, prefix)
	infos, err := s.store.List(ctx, prefix, after, limit)
	end(span, err)
	return infos, err
}
