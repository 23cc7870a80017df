package tiering

import (
	"context"
	"errors"
	"fmt"

	"github.com/tidemark-io/tidemark/metadata"
	"github.com/tidemark-io/tidemark/tiering/failpoint"
)

// metadataChains keeps Chains in the metadata store.
type metadataChains struct{ kv metadata.KV }

var _ Chains = metadataChains{}

// NewChains returns Chains over the cluster's metadata store.
func NewChains(kv metadata.KV) Chains { return metadataChains{kv} }

func (c metadataChains) Load(ctx context.Context, inc metadata.Incarnation) (metadata.Chain, error) {
	chain, _, err := metadata.LoadChain(ctx, c.kv, inc)
	return chain, err
}

func (c metadataChains) Checkpointed(ctx context.Context, inc metadata.Incarnation, slot uint64) error {
	if err := failpoint.Hit(failpoint.BeforeTxn); err != nil {
		return err
	}
	_, err := metadata.UpdateChain(ctx, c.kv, inc, func(chain *metadata.Chain) error {
		if chain.End != nil {
			return fmt.Errorf("%w: its chain was sealed at slot %d", ErrFenced, *chain.End)
		}
		chain.Checkpoint = max(chain.Checkpoint, slot)
		return nil
	})
	if err != nil {
		return err
	}
	return failpoint.Hit(failpoint.AfterTxn)
}

func (c metadataChains) Trimmed(ctx context.Context, inc metadata.Incarnation, slot, deleted uint64) error {
	_, err := metadata.UpdateChain(ctx, c.kv, inc, func(chain *metadata.Chain) error {
		if chain.End != nil {
			return fmt.Errorf("%w: its chain was sealed at slot %d", ErrFenced, *chain.End)
		}
		chain.Trim, chain.Deleted = max(chain.Trim, slot), max(chain.Deleted, deleted)
		return nil
	})
	return err
}

func (c metadataChains) Owe(ctx context.Context, heir, of metadata.Incarnation, slot *uint64) error {
	err := metadata.Owe(ctx, c.kv, heir, of, slot)
	if errors.Is(err, metadata.ErrChainEnded) {
		return fmt.Errorf("%w: %w", ErrFenced, err)
	}
	return err
}

func (c metadataChains) LowestDebt(ctx context.Context, inc metadata.Incarnation) (uint64, bool, error) {
	return metadata.LowestDebt(ctx, c.kv, inc)
}

func (c metadataChains) Collect(ctx context.Context, keep uint64) ([]metadata.SealedChain, error) {
	return metadata.CollectChains(ctx, c.kv, keep)
}

func (c metadataChains) Abandoned(ctx context.Context) ([]metadata.Incarnation, error) {
	return metadata.AbandonedChains(ctx, c.kv)
}

func (c metadataChains) Collected(ctx context.Context, inc metadata.Incarnation, slot uint64, all bool) error {
	return metadata.Collected(ctx, c.kv, inc, slot, all)
}

func (c metadataChains) Owners(ctx context.Context) (map[metadata.TopicPartition][]metadata.Owner, error) {
	return metadata.PartitionOwners(ctx, c.kv)
}

func (c metadataChains) RecordEnd(ctx context.Context, inc metadata.Incarnation, end uint64) (uint64, error) {
	if err := failpoint.Hit(failpoint.BeforeEnd); err != nil {
		return 0, err
	}
	stands, err := metadata.RecordEnd(ctx, c.kv, inc, end)
	if err != nil {
		return 0, err
	}
	return stands, failpoint.Hit(failpoint.AfterEnd)
}
