// The hot loops of candidate search, compiled at install; `native.py` is the only door to them and says what each array is.
// Plain C++17 with a C interface: no Python header, no processor-specific instruction, nothing that a NumPy form
// (`scan.py`, `coarse.py`) does not also compute, to the same bits where it says so.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <new>
#include <vector>

namespace {

struct Hit {
    float score;
    std::uint32_t slot;
    std::int64_t feature;
};

struct Hits {
    std::vector<std::int64_t> query, slot, feature;
    std::vector<float> score;
};

struct List {
    const std::uint8_t *codes;
    const std::uint16_t *slots;
    std::int64_t first, last;
};

// The best K of what one query meets, and everything equal to the K-th.
class Best {
  public:
    Best(std::size_t k, float least) : k_(k), least_(least) {}

    void start() {
        hits_.clear();
        limit_ = least_;
        full_ = 4 * k_ + 64;
    }

    float limit() const { return limit_; }  // only a score above it is of interest

    void add(float score, std::uint32_t slot, std::int64_t feature) {
        hits_.push_back({score, slot, feature});
        if (hits_.size() >= full_) cut();
    }

    void cut() {
        if (hits_.size() <= k_) return;
        auto kth = hits_.begin() + static_cast<std::ptrdiff_t>(k_ - 1);
        std::nth_element(hits_.begin(), kth, hits_.end(), [](const Hit &a, const Hit &b) { return a.score > b.score; });
        const float worst = kth->score;
        hits_.erase(std::remove_if(hits_.begin(), hits_.end(), [=](const Hit &h) { return h.score < worst; }),
                    hits_.end());
        // above the value just below it is: equal to it or better
        limit_ = std::max(least_, std::nextafter(worst, -std::numeric_limits<float>::infinity()));
        full_ = std::max(full_, 2 * hits_.size());  // many equal ones must not be cut over and over
    }

    const std::vector<Hit> &hits() const { return hits_; }

  private:
    std::size_t k_, full_ = 0;
    float least_, limit_ = 0;
    std::vector<Hit> hits_;
};

// FIXED is the size of a code where the compiler shall know it, else 0. Sums run over m in order, as NumPy's do.
template <int FIXED>
void scan_list(const List &list, const float *table, float base, int code_size, std::uint32_t first_slot,
               const std::uint8_t *alive, std::int64_t number, Best &best) {
    const int M = FIXED ? FIXED : code_size;
    const std::uint8_t *code = list.codes + list.first * M;
    std::int64_t i = list.first;
    const auto take = [&](float score, std::int64_t at) {
        if (score > best.limit()) {
            const std::uint32_t slot = first_slot + list.slots[at];
            if (!alive || alive[slot]) best.add(score, slot, number << 40 | at);
        }
    };
    for (; i + 4 <= list.last; i += 4, code += 4 * M) {  // four sums at a time hide the latency of an addition
        float a = base, b = base, c = base, d = base;
        const float *row = table;
        for (int m = 0; m < M; ++m, row += 256) {
            a += row[code[m]];
            b += row[code[M + m]];
            c += row[code[2 * M + m]];
            d += row[code[3 * M + m]];
        }
        if (std::max(std::max(a, b), std::max(c, d)) > best.limit()) {
            take(a, i);
            take(b, i + 1);
            take(c, i + 2);
            take(d, i + 3);
        }
    }
    for (; i < list.last; ++i, code += M) {
        float a = base;
        for (int m = 0; m < M; ++m) a += table[256 * m + code[m]];
        take(a, i);
    }
}

using Scanner = decltype(&scan_list<0>);

Scanner scanner(int code_size) {
    switch (code_size) {
        case 8: return scan_list<8>;
        case 12: return scan_list<12>;
        case 14: return scan_list<14>;
        case 16: return scan_list<16>;
        default: return scan_list<0>;
    }
}

}  // namespace

extern "C" {

struct Segment {  // as `native.py` has it
    const std::uint8_t *codes;
    const std::uint16_t *slots;
    const std::uint32_t *starts;  // null in a small segment, which has `words`
    const std::uint16_t *words;
    std::int64_t length;
    std::int64_t first_slot;
};

int delf_edge_version() { return 1; }

// Returns a handle for `delf_edge_take`, or null where memory ran out.
void *delf_edge_scan(const Segment *segments, std::int64_t n_segments, const std::int32_t *words, const float *base,
                     const float *tables, std::int64_t n_queries, std::int64_t n_probe, std::int64_t code_size,
                     std::int64_t k, float min_similarity, const std::uint8_t *alive, std::int64_t *n_hits) {
    try {
        auto *out = new Hits;
        try {
            Best best(static_cast<std::size_t>(k), min_similarity);
            const Scanner scan = scanner(static_cast<int>(code_size));
            for (std::int64_t q = 0; q < n_queries; ++q) {
                best.start();
                for (std::int64_t p = 0; p < n_probe; ++p) {
                    const std::int32_t word = words[q * n_probe + p];
                    for (std::int64_t s = 0; s < n_segments; ++s) {
                        const Segment &part = segments[s];
                        List list{part.codes, part.slots, 0, 0};
                        if (part.starts) {
                            list.first = part.starts[word];
                            list.last = part.starts[word + 1];
                        } else {
                            const auto range = std::equal_range(part.words, part.words + part.length,
                                                                static_cast<std::uint16_t>(word));
                            list.first = range.first - part.words;
                            list.last = range.second - part.words;
                        }
                        if (list.first < list.last)
                            scan(list, tables + q * code_size * 256, base[q * n_probe + p],
                                 static_cast<int>(code_size), static_cast<std::uint32_t>(part.first_slot), alive, s,
                                 best);
                    }
                }
                best.cut();
                for (const Hit &hit : best.hits()) {
                    out->query.push_back(q);
                    out->slot.push_back(hit.slot);
                    out->feature.push_back(hit.feature);
                    out->score.push_back(hit.score);
                }
            }
        } catch (...) {
            delete out;
            throw;
        }
        *n_hits = static_cast<std::int64_t>(out->query.size());
        return out;
    } catch (const std::bad_alloc &) {
        return nullptr;
    }
}

// Copies what a scan found and frees the handle.
void delf_edge_take(void *handle, std::int64_t *query, std::int64_t *slot, std::int64_t *feature, float *score) {
    auto *hits = static_cast<Hits *>(handle);
    std::copy(hits->query.begin(), hits->query.end(), query);
    std::copy(hits->slot.begin(), hits->slot.end(), slot);
    std::copy(hits->feature.begin(), hits->feature.end(), feature);
    std::copy(hits->score.begin(), hits->score.end(), score);
    delete hits;
}

// The p largest of product[n, k] - half_norms[k] of every row, the largest first; of equal ones the lower k.
void delf_edge_nearest(const float *product, const float *half_norms, std::int64_t n_rows, std::int64_t n_words,
                       std::int64_t p, std::int32_t *words, float *similarity) {
    constexpr std::int64_t BLOCK = 64;
    std::vector<float> value(static_cast<std::size_t>(p));
    for (std::int64_t n = 0; n < n_rows; ++n) {
        const float *row = product + n * n_words;
        std::int32_t *index = words + n * p;
        std::int64_t have = 0;
        for (std::int64_t start = 0; start < n_words; start += BLOCK) {
            const std::int64_t end = std::min(start + BLOCK, n_words);
            if (have == p) {
                bool any = false;  // no early exit: this loop is made of vector instructions
                const float worst = value[static_cast<std::size_t>(p - 1)];
                for (std::int64_t k = start; k < end; ++k) any |= row[k] - half_norms[k] > worst;
                if (!any) continue;
            }
            for (std::int64_t k = start; k < end; ++k) {
                const float v = row[k] - half_norms[k];
                if (have == p && !(v > value[static_cast<std::size_t>(p - 1)])) continue;
                std::int64_t at = have < p ? have++ : p - 1;
                for (; at > 0 && value[static_cast<std::size_t>(at - 1)] < v; --at) {
                    value[static_cast<std::size_t>(at)] = value[static_cast<std::size_t>(at - 1)];
                    index[at] = index[at - 1];
                }
                value[static_cast<std::size_t>(at)] = v;
                index[at] = static_cast<std::int32_t>(k);
            }
        }
        for (std::int64_t i = 0; i < p; ++i) similarity[n * p + i] = row[index[i]];
    }
}

// <query, row> of int8 rows (n, g).
void delf_edge_inner_products(const std::int8_t *rows, const float *query, std::int64_t n, std::int64_t g, float *out) {
    for (std::int64_t i = 0; i < n; ++i) {
        const std::int8_t *row = rows + i * g;
        float sum[16] = {};
        std::int64_t j = 0;
        for (; j + 16 <= g; j += 16)
            for (int k = 0; k < 16; ++k) sum[k] += static_cast<float>(row[j + k]) * query[j + k];
        float all = 0;
        for (; j < g; ++j) all += static_cast<float>(row[j]) * query[j];
        for (float s : sum) all += s;
        out[i] = all;
    }
}

}  // extern "C"
