package main

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	apitrace "go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// openTracer exports traces by OTLP when an endpoint is configured.
func openTracer(ctx context.Context, cfg *Config) (apitrace.Tracer, func(), error) {
	if cfg.OTLPEndpoint == "" {
		return noop.NewTracerProvider().Tracer(""), func() {}, nil
	}
	exporter, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(cfg.OTLPEndpoint))
	if err != nil {
		return nil, nil, err
	}
	provider := trace.NewTracerProvider(trace.WithBatcher(exporter), trace.WithResource(resource.NewSchemaless(
		attribute.String("service.name", "tidemark"),
		attribute.String("service.version", versionString()),
		attribute.String("service.instance.id", cfg.Advertise),
	)))
	stop := func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = provider.Shutdown(ctx) // what is not sent by now is lost
	}
	return provider.Tracer("github.com/tidemark-io/tidemark"), stop, nil
}
