package node

import (
	"fmt"
	"net/url"
	"strings"

	"gantry/api"
	"gantry/transfer"
)

// parsePieces reads piece=K,K,…; what the numbers mean is judged by the export.
func parsePieces(q url.Values) ([]int64, error) {
	list := strings.SplitN(q.Get("piece"), ",", api.MaxSub+1)
	if len(list) > api.MaxSub {
		return nil, api.BadRequest.Err(fmt.Sprintf("piece: more than %d numbers", api.MaxSub))
	}
	pieces := make([]int64, len(list))
	for i, s := range list {
		n, err := position(s)
		if err != nil || n > maxNumber {
			return nil, api.BadRequest.Err("piece: numbers are needed, with commas between them")
		}
		pieces[i] = n
	}
	return pieces, nil
}

// parseRanges reads at-len,at-len,…; what they mean is judged by
// transfer.CheckRanges.
func parseRanges(s string) ([]transfer.Range, error) {
	list := strings.SplitN(s, ",", api.MaxRanges+1)
	if len(list) > api.MaxRanges {
		return nil, api.BadRequest.Err(fmt.Sprintf("r: more than %d ranges", api.MaxRanges))
	}
	ranges := make([]transfer.Range, len(list))
	for i, part := range list {
		first, second, _ := strings.Cut(part, "-")
		at, err := position(first)
		if err == nil {
			ranges[i].Len, err = position(second)
		}
		if err != nil {
			return nil, api.BadRequest.Err("r: at-len,at-len,… is needed, in bytes")
		}
		ranges[i].At = at
	}
	return ranges, nil
}
