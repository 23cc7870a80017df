package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// createBucketTimeout bounds the whole command: a store that was started in the
// same moment gets this long to answer.
const createBucketTimeout = 60 * time.Second

// createBucket makes the bucket of an s3:// store unless it is there. It is for
// trial clusters whose store starts empty; serve itself never creates a bucket,
// because a misspelt name must be an error.
func createBucket(ctx context.Context, cfg *Config) error {
	loc, err := cfg.StoreLocation()
	if err != nil {
		return fmt.Errorf("create bucket: %w", err)
	}
	if loc.Bucket == "" {
		return errors.New("create bucket: --store names no s3:// bucket")
	}
	client, err := s3Client(cfg)
	if err != nil {
		return fmt.Errorf("create bucket: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, createBucketTimeout)
	defer cancel()
	for {
		err := makeBucketOnce(ctx, client, loc.Bucket, cfg.S3Region)
		if err == nil {
			return nil
		}
		if status := minio.ToErrorResponse(err).StatusCode; status >= 400 && status < 500 {
			return fmt.Errorf("create bucket %s: refused: %w", loc.Bucket, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("create bucket %s: %w", loc.Bucket, err)
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func makeBucketOnce(ctx context.Context, client *minio.Client, bucket, region string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := client.MakeBucket(ctx, bucket, minio.MakeBucketOptions{Region: region})
	switch minio.ToErrorResponse(err).Code {
	case "BucketAlreadyOwnedByYou", "BucketAlreadyExists":
		return nil
	}
	return err
}

func s3Client(cfg *Config) (*minio.Client, error) {
	endpoint := &url.URL{Scheme: "https", Host: "s3.amazonaws.com"}
	if cfg.S3Endpoint != "" {
		var err error
		if endpoint, err = url.Parse(cfg.S3Endpoint); err != nil {
			return nil, err
		}
	}
	return minio.New(endpoint.Host, &minio.Options{
		Creds: credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{},
		}),
		Secure:     endpoint.Scheme == "https",
		Region:     cfg.S3Region,
		MaxRetries: 1,
	})
}
