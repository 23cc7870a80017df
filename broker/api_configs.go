package broker

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark-io/tidemark/broker/internal/configdef"
)

func (s *Server) describeConfigs(_ context.Context, r *Request, req *kmsg.DescribeConfigsRequest) kmsg.Response {
	resp := kmsg.NewPtrDescribeConfigsResponse()
	answered := map[resourceKey]bool{} // once each: an answer is far larger than a name
	for i := range req.Resources {
		asked := &req.Resources[i]
		key := resourceKey{asked.ResourceType, asked.ResourceName}
		if answered[key] {
			continue
		}
		answered[key] = true
		out := kmsg.NewDescribeConfigsResponseResource()
		out.ResourceType, out.ResourceName = asked.ResourceType, asked.ResourceName
		res, err := s.resource(asked.ResourceType, asked.ResourceName)
		if err != nil {
			out.ErrorCode, out.ErrorMessage = r.code(err), errorText(err)
		} else {
			out.Configs = res.describe(req, asked.ConfigNames)
		}
		resp.Resources = append(resp.Resources, out)
	}
	return resp
}

// describe lists a resource's configs: those named, or all for a null list.
func (res *resource) describe(req *kmsg.DescribeConfigsRequest, names []string) []kmsg.DescribeConfigsResponseResourceConfig {
	out := []kmsg.DescribeConfigsResponseResourceConfig{}
	for i := range res.defs {
		d := &res.defs[i]
		if names != nil && !slices.Contains(names, d.Name) {
			continue
		}
		settings := res.settings(d)
		if len(settings) == 0 && !d.Null() {
			continue
		}
		out = append(out, describeConfig(req, d, settings))
	}
	return out
}

func describeConfig(req *kmsg.DescribeConfigsRequest, d *configdef.Def, settings []setting) kmsg.DescribeConfigsResponseResourceConfig {
	c := kmsg.NewDescribeConfigsResponseResourceConfig()
	c.Name, c.ReadOnly, c.ConfigType, c.Source = d.Name, d.ReadOnly, d.Type, kmsg.ConfigSourceDefaultConfig
	if len(settings) > 0 {
		c.Value, c.Source = &settings[0].value, settings[0].source
	}
	c.IsDefault = c.Source == kmsg.ConfigSourceDefaultConfig
	if req.IncludeDocumentation {
		c.Documentation = &d.Doc
	}
	if req.IncludeSynonyms {
		for i := range settings {
			syn := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
			syn.Name, syn.Value, syn.Source = settings[i].name, &settings[i].value, settings[i].source
			c.ConfigSynonyms = append(c.ConfigSynonyms, syn)
		}
	}
	return c
}

type resourceKey struct {
	kind kmsg.ConfigResourceType
	name string
}

var errTwice = refuse(kerr.InvalidRequest, "Each resource must appear at most once.")

// alterConfigs replaces a resource's configs by those named.
func (s *Server) alterConfigs(ctx context.Context, r *Request, req *kmsg.AlterConfigsRequest) kmsg.Response {
	resp := kmsg.NewPtrAlterConfigsResponse()
	named := map[resourceKey]int{}
	for i := range req.Resources {
		named[resourceKey{req.Resources[i].ResourceType, req.Resources[i].ResourceName}]++
	}
	for i := range req.Resources {
		asked := &req.Resources[i]
		var changes []change
		for _, c := range asked.Configs {
			changes = append(changes, change{name: c.Name, value: c.Value})
		}
		err := errTwice
		if named[resourceKey{asked.ResourceType, asked.ResourceName}] == 1 {
			err = s.alterResource(ctx, asked.ResourceType, asked.ResourceName, changes, true, req.ValidateOnly)
		}
		out := kmsg.NewAlterConfigsResponseResource()
		out.ResourceType, out.ResourceName = asked.ResourceType, asked.ResourceName
		out.ErrorCode, out.ErrorMessage = r.code(err), errorText(err)
		resp.Resources = append(resp.Resources, out)
	}
	return resp
}

// incrementalAlterConfigs changes only what is named.
func (s *Server) incrementalAlterConfigs(ctx context.Context, r *Request, req *kmsg.IncrementalAlterConfigsRequest) kmsg.Response {
	resp := kmsg.NewPtrIncrementalAlterConfigsResponse()
	named := map[resourceKey]int{}
	for i := range req.Resources {
		named[resourceKey{req.Resources[i].ResourceType, req.Resources[i].ResourceName}]++
	}
	for i := range req.Resources {
		asked := &req.Resources[i]
		var changes []change
		for _, c := range asked.Configs {
			changes = append(changes, change{name: c.Name, op: c.Op, value: c.Value})
		}
		err := errTwice
		if named[resourceKey{asked.ResourceType, asked.ResourceName}] == 1 {
			err = s.alterResource(ctx, asked.ResourceType, asked.ResourceName, changes, false, req.ValidateOnly)
		}
		out := kmsg.NewIncrementalAlterConfigsResponseResource()
		out.ResourceType, out.ResourceName = asked.ResourceType, asked.ResourceName
		out.ErrorCode, out.ErrorMessage = r.code(err), errorText(err)
		resp.Resources = append(resp.Resources, out)
	}
	return resp
}

func (s *Server) alterResource(ctx context.Context, kind kmsg.ConfigResourceType, name string, changes []change, replace, validateOnly bool) error {
	res, err := s.resource(kind, name)
	if err != nil {
		return err
	}
	return res.alter(ctx, changes, replace, validateOnly)
}
