// Package flow says on whose behalf something is read, so that those who share
// what reading takes can take turns.
package flow

import "context"

// Flow names a reader and what it reads. Both are compared, and mean nothing
// here; the zero value stands for everybody who did not say.
type Flow struct {
	Reader any // who reads: a consumer's connection
	Stream any // what it reads: a partition
}

type key struct{}

// Of returns the flow of ctx.
func Of(ctx context.Context) Flow {
	f, _ := ctx.Value(key{}).(Flow)
	return f
}

// With returns ctx with its flow set.
func With(ctx context.Context, f Flow) context.Context { return context.WithValue(ctx, key{}, f) }

// WithReader returns ctx with the reader set. reader must be comparable.
func WithReader(ctx context.Context, reader any) context.Context {
	return With(ctx, Flow{reader, Of(ctx).Stream})
}

// WithStream returns ctx with the stream set. stream must be comparable.
func WithStream(ctx context.Context, stream any) context.Context {
	return With(ctx, Flow{Of(ctx).Reader, stream})
}
