// Package peerpb holds the generated messages and service of the protocol
// between brokers; peer.proto is its description. Only package peer uses it.
//
// Generating needs protoc, protoc-gen-go and protoc-gen-go-grpc on the PATH.
package peerpb

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative peer.proto
