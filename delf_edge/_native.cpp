// The hot loops of search and verification, compiled at install; `native.py` is the only door to them and says what each
// array is. Plain C++17 with a C interface: no Python header, no processor-specific instruction, nothing that a NumPy form
// (`index`, `quantization`, `verification.py`) does not also compute, to the same bits where it says so: sums
// run in NumPy's order, and products and sums are not contracted.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <new>
#include <utility>
#include <vector>

namespace {

struct Hit {
    float score;
    std::int32_t word;
    std::int64_t feature;
};

constexpr std::int64_t INDEX = (std::int64_t{1} << 40) - 1;  // of a feature in its segment

struct Hits {
    std::vector<std::int64_t> query, slot, feature;
    std::vector<float> score;
};

struct Segment {  // as `native.py` has it; `inverted_lists.py` says what each is
    const std::uint8_t *codes;
    const std::uint32_t *starts;  // this and the next three are null in a small segment, which has `words` and `slots`
    const std::uint8_t *steps;
    const std::uint32_t *jump_at;
    const std::uint16_t *jump_by;
    const std::uint16_t *words;
    const std::uint16_t *slots;
    std::int64_t length, n_jumps, first_slot;
};

// One list of a segment. Slots are asked for in ascending order of features, few of them: steps are summed when needed.
class List {
  public:
    const std::int32_t word;
    std::int64_t first = 0, last = 0;

    List(const Segment &part, std::int32_t number) : word(number), part_(part) {
        if (part.starts) {
            first = part.starts[word], last = part.starts[word + 1];
        } else {
            const auto range = std::equal_range(part.words, part.words + part.length, static_cast<std::uint16_t>(word));
            first = range.first - part.words, last = range.second - part.words;
        }
        next_ = first;
        slot_ = static_cast<std::uint32_t>(part.first_slot);
    }

    const std::uint8_t *codes() const { return part_.codes; }

    std::uint32_t slot(std::int64_t at) {
        if (part_.slots) return static_cast<std::uint32_t>(part_.first_slot) + part_.slots[at];
        const std::int64_t from = next_;
        std::uint32_t sum = 0, far = 0;
        for (; next_ <= at; ++next_) sum += part_.steps[next_], far |= part_.steps[next_] == 255;
        if (far)
            for (std::int64_t i = from; i <= at; ++i)
                if (part_.steps[i] == 255) sum += jump(i) - 255u;
        return slot_ += sum;
    }

  private:
    const Segment &part_;
    const std::uint32_t *jump_ = nullptr;
    std::int64_t next_;
    std::uint32_t slot_;

    std::uint32_t jump(std::int64_t at) {
        if (!jump_) jump_ = std::lower_bound(part_.jump_at, part_.jump_at + part_.n_jumps, at);
        while (*jump_ < at) ++jump_;
        return part_.jump_by[jump_ - part_.jump_at];
    }
};

constexpr std::int64_t BLOCK = 128;  // features scored before the best are chosen

// The best K of what one query meets, and everything equal to the K-th. Which score exceeds the limit cannot be foretold, and
// a wrong guess costs the processor as much as scoring a feature: so loops here write first and decide by an addition.
class Best {
  public:
    Best(std::size_t k, float least) : k_(k), least_(least) {}

    void start() {
        n_ = 0;
        limit_ = least_;
        full_ = 4 * k_ + 64;
    }

    // Takes what exceeds the limit of n scores, at most `BLOCK`, of features first, first + 1, ... of a list.
    void add(const float *scores, std::size_t n, std::int64_t first, std::int32_t word) {
        std::uint8_t better[BLOCK];
        std::size_t found = 0;
        for (std::size_t i = 0; i < n; ++i) {
            better[found] = static_cast<std::uint8_t>(i);
            found += scores[i] > limit_;
        }
        if (hits_.size() < n_ + found) hits_.resize(2 * (n_ + found));
        for (std::size_t i = 0; i < found; ++i) hits_[n_++] = {scores[better[i]], word, first + better[i]};
    }

    // Drops the hits from `from` on whose images are dead.
    template <class Alive>
    void sift(std::size_t from, Alive alive) {
        std::size_t kept = from;
        for (std::size_t i = from; i < n_; ++i)
            if (alive(hits_[i])) hits_[kept++] = hits_[i];
        n_ = kept;
    }

    // Drops most of what cannot be among the K best, without sorting: scores are counted in 64 classes.
    void settle() {
        if (n_ < full_) return;
        float most = limit_, least = std::numeric_limits<float>::max();
        for (std::size_t i = 0; i < n_; ++i) most = std::max(most, hits_[i].score);
        const float scale = 63 / (most - limit_);
        std::size_t count[64] = {}, better = 0;
        const auto level = [&](std::size_t i) { return static_cast<int>((hits_[i].score - limit_) * scale) & 63; };
        if (std::isfinite(scale))
            for (std::size_t i = 0; i < n_; ++i) ++count[level(i)];
        int last = 63;
        while (last > 0 && (better += count[last]) < k_) --last;
        std::size_t kept = 0;
        for (std::size_t i = 0; last > 0 && i < n_; ++i) {
            const bool keep = level(i) >= last;
            least = keep ? std::min(least, hits_[i].score) : least;
            hits_[kept] = hits_[i];
            kept += keep;
        }
        if (last > 0) n_ = kept, limit_ = std::nextafter(least, 0.0f);  // what equals the least is taken, too
        full_ = std::max(full_, 2 * n_);  // many equal ones must not be counted over and over
    }

    void cut() {
        if (n_ <= k_) return;
        scores_.resize(n_);
        for (std::size_t i = 0; i < n_; ++i) scores_[i] = hits_[i].score;
        const auto kth = scores_.begin() + static_cast<std::ptrdiff_t>(k_ - 1);
        std::nth_element(scores_.begin(), kth, scores_.end(), [](float a, float b) { return a > b; });
        const float worst = *kth;
        std::size_t kept = 0;
        for (std::size_t i = 0; i < n_; ++i) {
            hits_[kept] = hits_[i];
            kept += !(hits_[i].score < worst);
        }
        n_ = kept;
    }

    std::size_t size() const { return n_; }
    const Hit *begin() const { return hits_.data(); }
    const Hit *end() const { return hits_.data() + n_; }

  private:
    std::size_t k_, n_ = 0, full_ = 0;
    float least_, limit_ = 0;
    std::vector<Hit> hits_;
    std::vector<float> scores_;
};

// Gathering table entries into vectors costs more than the additions it saves, but GCC believes otherwise.
#if defined(__GNUC__) && !defined(__clang__)
#define SCALAR __attribute__((optimize("no-tree-slp-vectorize")))
#else
#define SCALAR
#endif

std::uint32_t four(const std::uint8_t *b) {  // compilers know that this is one load
    return b[0] | static_cast<std::uint32_t>(b[1]) << 8 | static_cast<std::uint32_t>(b[2]) << 16 |
           static_cast<std::uint32_t>(b[3]) << 24;
}

// FIXED is the size of a code where the compiler shall know it, else 0. Sums run over m in order, as NumPy's do. Eight sums
// at a time hide the latency of an addition; four bytes of code at a time spare loads, which are what limits the loop.
template <int FIXED>
SCALAR void score(const std::uint8_t *code, std::size_t n, int code_size, const float *table, float base, float *out) {
    const int M = FIXED ? FIXED : code_size;
    std::size_t i = 0;
    for (; i + 8 <= n; i += 8, code += 8 * M, out += 8) {
        float a = base, b = base, c = base, d = base, e = base, f = base, g = base, h = base;
        const float *row = table;
        int m = 0;
        for (; m + 4 <= M; m += 4) {
            const std::uint8_t *at = code + m;
            std::uint32_t p = four(at), q = four(at + M), r = four(at + 2 * M), s = four(at + 3 * M);
            std::uint32_t t = four(at + 4 * M), u = four(at + 5 * M), v = four(at + 6 * M), w = four(at + 7 * M);
            for (int k = 0; k < 4; ++k, row += 256) {
                a += row[p & 255], b += row[q & 255], c += row[r & 255], d += row[s & 255];
                e += row[t & 255], f += row[u & 255], g += row[v & 255], h += row[w & 255];
                p >>= 8, q >>= 8, r >>= 8, s >>= 8, t >>= 8, u >>= 8, v >>= 8, w >>= 8;
            }
        }
        for (; m < M; ++m, row += 256) {
            const std::uint8_t *at = code + m;
            a += row[at[0]], b += row[at[M]], c += row[at[2 * M]], d += row[at[3 * M]];
            e += row[at[4 * M]], f += row[at[5 * M]], g += row[at[6 * M]], h += row[at[7 * M]];
        }
        out[0] = a, out[1] = b, out[2] = c, out[3] = d, out[4] = e, out[5] = f, out[6] = g, out[7] = h;
    }
    for (; i < n; ++i, code += M, ++out) {
        float a = base;
        for (int m = 0; m < M; ++m) a += table[256 * m + code[m]];
        *out = a;
    }
}

template <int FIXED>
void scan_list(List &list, const float *table, float base, int code_size, const std::uint8_t *alive,
               std::int64_t number, Best &best) {
    float scores[BLOCK];
    for (std::int64_t start = list.first; start < list.last; start += BLOCK) {
        const auto n = static_cast<std::size_t>(std::min(BLOCK, list.last - start));
        score<FIXED>(list.codes() + start * code_size, n, code_size, table, base, scores);
        const std::size_t before = best.size();
        best.add(scores, n, number << 40 | start, list.word);
        if (alive) best.sift(before, [&](const Hit &hit) { return alive[list.slot(hit.feature & INDEX)] != 0; });
        best.settle();
    }
}

using Scanner = decltype(&scan_list<0>);

Scanner scanner(int code_size) {
    switch (code_size) {
        case 8: return scan_list<8>;
        case 10: return scan_list<10>;
        case 12: return scan_list<12>;
        case 14: return scan_list<14>;
        case 16: return scan_list<16>;
        default: return scan_list<0>;
    }
}

// A map of row vectors [x, y, 1]: row i of (3, 2) is (a[i], b[i]), a gives the new x and b the new y.
struct Map {
    double a[3], b[3];
};

struct Limits {
    double scale, squeeze;  // of r, the ratio of the singular values: at most r + 1 / r

    // No mirror image, no extreme scale, no extreme squeeze.
    bool allow(const Map &m) const {
        const double det = m.a[0] * m.b[1] - m.b[0] * m.a[1];
        const double norm = m.a[0] * m.a[0] + m.b[0] * m.b[0] + m.a[1] * m.a[1] + m.b[1] * m.b[1];
        const double size = std::sqrt(det);
        return det > 0 && size <= scale && size >= 1 / scale && norm / det <= squeeze;
    }
};

// Pairs of points, the first of each centred.
struct Pairs {
    std::int64_t n;
    std::vector<double> x, y, to_x, to_y;
    double centre_x = 0, centre_y = 0;

    Pairs(const float *source, const float *target, std::int64_t count) : n(count) {
        for (std::int64_t i = 0; i < n; ++i) centre_x += source[2 * i], centre_y += source[2 * i + 1];
        centre_x /= static_cast<double>(n), centre_y /= static_cast<double>(n);
        for (std::int64_t i = 0; i < n; ++i) {
            x.push_back(source[2 * i] - centre_x), y.push_back(source[2 * i + 1] - centre_y);
            to_x.push_back(target[2 * i]), to_y.push_back(target[2 * i + 1]);
        }
    }
};

// Exact map of three pairs; false where they lie nearly on a line.
bool affine_map(const Pairs &p, const std::size_t (&i)[3], double least_area, Map &map) {
    const double ux = p.x[i[1]] - p.x[i[0]], uy = p.y[i[1]] - p.y[i[0]];
    const double vx = p.x[i[2]] - p.x[i[0]], vy = p.y[i[2]] - p.y[i[0]];
    const double det = ux * vy - uy * vx;
    if (!(std::abs(det) > least_area)) return false;
    const double *goals[2] = {p.to_x.data(), p.to_y.data()};
    double *columns[2] = {map.a, map.b};
    for (int j = 0; j < 2; ++j) {
        const double s = goals[j][i[1]] - goals[j][i[0]], t = goals[j][i[2]] - goals[j][i[0]];
        double *c = columns[j];
        c[0] = (vy * s - uy * t) / det;
        c[1] = (ux * t - vx * s) / det;
        c[2] = goals[j][i[0]] - (p.x[i[0]] * c[0] + p.y[i[0]] * c[1]);
    }
    return true;
}

// Rotation, one scale and shift of two pairs; false where they are too near.
bool similarity_map(const Pairs &p, std::size_t a, std::size_t b, double least_square, Map &map) {
    const double x = p.x[b] - p.x[a], y = p.y[b] - p.y[a], square = x * x + y * y;
    if (!(square > least_square)) return false;
    const double u = p.to_x[b] - p.to_x[a], v = p.to_y[b] - p.to_y[a];
    const double c = (x * u + y * v) / square, s = (x * v - y * u) / square;
    map.a[0] = c, map.a[1] = -s, map.a[2] = p.to_x[a] - (c * p.x[a] - s * p.y[a]);
    map.b[0] = s, map.b[1] = c, map.b[2] = p.to_y[a] - (s * p.x[a] + c * p.y[a]);
    return true;
}

std::vector<Map> hypotheses(const Pairs &p, const double *draws, std::int64_t n_draws, const Limits &limits) {
    double extent = 0, far = 0;
    for (std::int64_t i = 0; i < p.n; ++i) {
        const double x = p.x[static_cast<std::size_t>(i)], y = p.y[static_cast<std::size_t>(i)];
        extent = std::max(extent, std::max(std::abs(x), std::abs(y)));
        far = std::max(far, x * x + y * y);
    }
    const double least_area = 1e-4 * (extent * extent) + 1e-9, least_square = 1e-4 * far + 1e-18;
    std::vector<Map> maps;
    maps.reserve(static_cast<std::size_t>(n_draws));
    for (std::int64_t h = 0; h < n_draws; ++h, draws += 3) {  // three different indices, as `_samples` draws them
        const auto n = static_cast<double>(p.n);
        const auto a = static_cast<std::int64_t>(draws[0] * n);
        auto b = a + 1 + static_cast<std::int64_t>(draws[1] * (n - 1));
        if (b >= p.n) b -= p.n;
        auto c = static_cast<std::int64_t>(draws[2] * (n - 2));
        c += c >= std::min(a, b);
        c += c >= std::max(a, b);
        const std::size_t sample[3] = {static_cast<std::size_t>(a), static_cast<std::size_t>(b),
                                       static_cast<std::size_t>(c)};
        Map map;
        const bool made = h < (n_draws + 1) / 2 ? affine_map(p, sample, least_area, map)
                                                : similarity_map(p, sample[0], sample[1], least_square, map);
        if (made && limits.allow(map)) maps.push_back(map);
    }
    return maps;
}

using Inliers = std::vector<std::uint8_t>;

// Inliers of the `keep` maps of least truncated cost, the best first, all in float32.
std::vector<Inliers> most_promising(const std::vector<Map> &maps, const Pairs &p, double tolerance, std::int64_t keep) {
    const std::size_t H = maps.size(), P = static_cast<std::size_t>(p.n);
    const auto limit = static_cast<float>(tolerance * tolerance);
    std::vector<float> flat(6 * H), cost(H);
    for (std::size_t h = 0; h < H; ++h)
        for (std::size_t i = 0; i < 3; ++i) {
            flat[i * H + h] = static_cast<float>(maps[h].a[i]);
            flat[(3 + i) * H + h] = static_cast<float>(maps[h].b[i]);
        }
    const float *a0 = flat.data(), *a1 = a0 + H, *a2 = a1 + H, *b0 = a2 + H, *b1 = b0 + H, *b2 = b1 + H;
    const auto squared = [&](std::size_t i, std::size_t h) {
        const auto x = static_cast<float>(p.x[i]), y = static_cast<float>(p.y[i]);
        const float u = x * a0[h] + y * a1[h] + a2[h] - static_cast<float>(p.to_x[i]);
        const float v = x * b0[h] + y * b1[h] + b2[h] - static_cast<float>(p.to_y[i]);
        return u * u + v * v;
    };
    const auto least = [=](float s) { return s < limit ? s : limit; };
    float *sum = cost.data();
    std::size_t i = 0;
    for (; i + 4 <= P; i += 4)  // four at a time load a map once; sums stay in order
        for (std::size_t h = 0; h < H; ++h)  // made of vector instructions
            sum[h] = sum[h] + least(squared(i, h)) + least(squared(i + 1, h)) + least(squared(i + 2, h)) +
                     least(squared(i + 3, h));
    for (; i < P; ++i)
        for (std::size_t h = 0; h < H; ++h) sum[h] += least(squared(i, h));
    std::vector<std::size_t> order(H);
    for (std::size_t h = 0; h < H; ++h) order[h] = h;
    const std::size_t n = std::min(H, static_cast<std::size_t>(keep));
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(n), order.end(),
                      [&](std::size_t s, std::size_t t) { return cost[s] != cost[t] ? cost[s] < cost[t] : s < t; });
    std::vector<Inliers> found(n, Inliers(P));
    for (std::size_t k = 0; k < n; ++k)
        for (i = 0; i < P; ++i) found[k][i] = squared(i, order[k]) <= limit;
    return found;
}

// The affine map of chosen pairs in closed form; false where they lie on a line.
bool least_squares(const Inliers &chosen, const Pairs &p, Map &map) {
    double m[12] = {}, count = 0;
    for (std::size_t i = 0; i < chosen.size(); ++i) {
        if (!chosen[i]) continue;
        const double x = p.x[i], y = p.y[i], u = p.to_x[i], v = p.to_y[i];
        const double products[12] = {x, y, u, v, x * x, x * y, y * x, y * y, x * u, x * v, y * u, y * v};
        for (int k = 0; k < 12; ++k) m[k] += products[k];
        count += 1;
    }
    for (double &value : m) value /= std::max(count, 1.0);
    const double a = m[4] - m[0] * m[0], b = m[5] - m[0] * m[1], d = m[7] - m[1] * m[1];
    const double det = a * d - b * b, trace = a + d;
    if (det <= 1e-9 * (trace * trace)) return false;
    const double across[2][2] = {{m[8] - m[0] * m[2], m[9] - m[0] * m[3]}, {m[10] - m[1] * m[2], m[11] - m[1] * m[3]}};
    double *columns[2] = {map.a, map.b};
    for (int j = 0; j < 2; ++j) {
        double *c = columns[j];
        c[0] = (d * across[0][j] - b * across[1][j]) / det;
        c[1] = (a * across[1][j] - b * across[0][j]) / det;
        c[2] = m[2 + j] - (m[0] * c[0] + m[1] * c[1]);
    }
    return true;
}

// Least squares on the inliers, inliers of the result, and again; returns their number, 0 where no plausible map fits.
std::int64_t refine(Inliers chosen, const Pairs &p, double tolerance, std::int64_t rounds, const Limits &limits,
                    Inliers &best, Map &best_map) {
    std::int64_t most = 0;
    Inliers agree(chosen.size());
    for (std::int64_t round = 0; round < rounds; ++round) {
        Map map;
        if (!least_squares(chosen, p, map) || !limits.allow(map)) break;
        std::int64_t n = 0;
        for (std::size_t i = 0; i < agree.size(); ++i) {
            const double u = p.x[i] * map.a[0] + p.y[i] * map.a[1] + map.a[2] - p.to_x[i];
            const double v = p.x[i] * map.b[0] + p.y[i] * map.b[1] + map.b[2] - p.to_y[i];
            n += agree[i] = u * u + v * v <= tolerance * tolerance;
        }
        if (n <= std::max<std::int64_t>(most, 2)) break;
        most = n, best = chosen = agree, best_map = map;
    }
    return most;
}

// The largest of 64 differences; elementwise, so that it is made of vector instructions.
float largest_of_64(const float *a, const float *b) {
    float v[64];
    for (int k = 0; k < 64; ++k) v[k] = a[k] - b[k];
    for (int k = 0; k < 32; ++k) v[k] = v[k] > v[k + 32] ? v[k] : v[k + 32];
    for (int k = 0; k < 16; ++k) v[k] = v[k] > v[k + 16] ? v[k] : v[k + 16];
    float most = v[0];
    for (int k = 1; k < 16; ++k) most = std::max(most, v[k]);
    return most;
}

}  // namespace

extern "C" {

int delf_edge_version() { return 5; }

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
                        List list(segments[s], word);
                        if (list.first < list.last)
                            scan(list, tables + q * code_size * 256, base[q * n_probe + p],
                                 static_cast<int>(code_size), alive, s, best);
                    }
                }
                best.cut();
                for (const Hit *hit = best.begin(); hit != best.end();) {  // of one list after the other
                    const std::int64_t number = hit->feature >> 40;
                    List list(segments[number], hit->word);
                    for (; hit != best.end() && hit->feature >> 40 == number && hit->word == list.word; ++hit) {
                        out->query.push_back(q);
                        out->slot.push_back(list.slot(hit->feature & INDEX));
                        out->feature.push_back(hit->feature);
                        out->score.push_back(hit->score);
                    }
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

// The p largest of product[n, k] - half_norms[k] of every row, the largest first; of equal ones the lower k. They lie in the
// blocks whose largest value is not below the p-th largest of these.
void delf_edge_nearest(const float *product, const float *half_norms, std::int64_t n_rows, std::int64_t n_words,
                       std::int64_t p, std::int32_t *words, float *similarity) {
    constexpr std::int64_t BLOCK = 64;
    const std::int64_t n_blocks = n_words / BLOCK;
    std::vector<float> value(static_cast<std::size_t>(p)), most(static_cast<std::size_t>(n_blocks)), sorted;
    for (std::int64_t n = 0; n < n_rows; ++n) {
        const float *row = product + n * n_words;
        float least = -std::numeric_limits<float>::infinity();
        for (std::int64_t b = 0; b < n_blocks; ++b)
            most[static_cast<std::size_t>(b)] = largest_of_64(row + b * BLOCK, half_norms + b * BLOCK);
        if (n_blocks >= p) {
            sorted = most;
            std::nth_element(sorted.begin(), sorted.begin() + (p - 1), sorted.end(), std::greater<float>());
            least = sorted[static_cast<std::size_t>(p - 1)];
        }
        std::int32_t *index = words + n * p;
        std::fill(index, index + p, 0);  // what is not a number is nowhere
        std::int64_t have = 0;
        for (std::int64_t start = 0; start < n_words; start += BLOCK) {
            if (start / BLOCK < n_blocks && most[static_cast<std::size_t>(start / BLOCK)] < least) continue;
            for (std::int64_t k = start; k < std::min(start + BLOCK, n_words); ++k) {
                const float v = row[k] - half_norms[k];
                if (v < least || (have == p && !(v > value[static_cast<std::size_t>(p - 1)]))) continue;
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

// The best affine map of pairs of points (n, 2), n at least 3: (2, 3), and its inliers. Returns their number; 0: no map.
// -1: no memory. `draws` are (n_draws, 3), in [0, 1).
std::int64_t delf_edge_affine(const float *source, const float *target, std::int64_t n, const double *draws,
                              std::int64_t n_draws, double tolerance, std::int64_t refined, std::int64_t rounds,
                              double max_scale, double max_anisotropy, double *transform, std::uint8_t *inliers) {
    try {
        const Pairs pairs(source, target, n);
        const Limits limits{max_scale, max_anisotropy + 1 / max_anisotropy};
        const auto maps = hypotheses(pairs, draws, n_draws, limits);
        std::int64_t most = 0;
        Map best{};
        for (auto &chosen : most_promising(maps, pairs, tolerance, refined)) {
            Inliers agree;
            Map map;
            const std::int64_t found = refine(std::move(chosen), pairs, tolerance, rounds, limits, agree, map);
            if (found <= most) continue;
            most = found, best = map;
            std::copy(agree.begin(), agree.end(), inliers);
        }
        if (most) {
            const double *columns[2] = {best.a, best.b};
            for (int j = 0; j < 2; ++j) {
                const double *c = columns[j];
                transform[3 * j] = c[0], transform[3 * j + 1] = c[1];
                transform[3 * j + 2] = c[2] - (c[0] * pairs.centre_x + c[1] * pairs.centre_y);
            }
        }
        return most;
    } catch (const std::bad_alloc &) {
        return -1;
    }
}

// Of every (query, slot) the hit of the largest score, of equal ones that of the lowest feature, by query and slot: indices
// into the hits, and how many of these hits are of the same feature. Returns their number, -1: no memory.
std::int64_t delf_edge_voters(const std::int64_t *query, const std::int64_t *slot, const std::int64_t *feature,
                              const float *score, std::int64_t n, std::int64_t *chosen, std::int64_t *times) {
    try {
        for (std::int64_t i = 0; i < n; ++i) chosen[i] = i;
        const auto before = [=](std::int64_t a, std::int64_t b) {
            if (slot[a] != slot[b]) return slot[a] < slot[b];
            return score[a] != score[b] ? score[a] > score[b] : feature[a] < feature[b];
        };
        if (std::is_sorted(query, query + n)) {  // as a scan leaves them: many short sorts are faster
            for (std::int64_t start = 0, end = 0; start < n; start = end) {
                while (end < n && query[end] == query[start]) ++end;
                std::sort(chosen + start, chosen + end, before);
            }
        } else {
            std::sort(chosen, chosen + n, [=](std::int64_t a, std::int64_t b) {
                return query[a] != query[b] ? query[a] < query[b] : before(a, b);
            });
        }
        std::int64_t kept = 0;
        for (std::int64_t i = 0; i < n; ++i) {
            const std::int64_t hit = chosen[i];
            if (!kept || query[chosen[kept - 1]] != query[hit] || slot[chosen[kept - 1]] != slot[hit])
                chosen[kept++] = hit;
        }
        std::size_t size = 16;  // a table of features with open addressing, at most half full
        while (size < 2 * static_cast<std::size_t>(kept)) size *= 2;
        std::vector<std::int64_t> keys(size, -1), counts(size);
        const auto place = [&](std::int64_t key) {
            std::size_t at = static_cast<std::uint64_t>(key) * 0x9E3779B97F4A7C15u >> 20 & (size - 1);
            while (keys[at] != -1 && keys[at] != key) at = (at + 1) & (size - 1);
            return at;
        };
        for (std::int64_t i = 0; i < kept; ++i) {
            const std::size_t at = place(feature[chosen[i]]);
            keys[at] = feature[chosen[i]];
            ++counts[at];
        }
        for (std::int64_t i = 0; i < kept; ++i) times[i] = counts[place(feature[chosen[i]])];
        return kept;
    } catch (const std::bad_alloc &) {
        return -1;
    }
}

// Unit rows (n, M d): the centroid that the word of a feature names, plus the codewords that its code (M) names. Words are
// below the number of centroids.
void delf_edge_decode(const float *centroids, const std::uint16_t *words, const float *pq, const std::uint8_t *codes,
                      std::int64_t n, std::int64_t code_size, std::int64_t d, float *out) {
    const std::int64_t D = code_size * d;
    for (std::int64_t i = 0; i < n; ++i, out += D, codes += code_size) {
        const float *centroid = centroids + words[i] * D;
        for (std::int64_t m = 0; m < code_size; ++m) {
            const float *word = pq + (m * 256 + codes[m]) * d;
            for (std::int64_t j = 0; j < d; ++j) out[m * d + j] = centroid[m * d + j] + word[j];
        }
        float sum[4] = {};
        std::int64_t j = 0;
        for (; j + 4 <= D; j += 4)
            for (int k = 0; k < 4; ++k) sum[k] += out[j + k] * out[j + k];
        float square = sum[0] + sum[1] + sum[2] + sum[3];
        for (; j < D; ++j) square += out[j] * out[j];
        const float norm = std::max(std::sqrt(square), 1e-12f);
        for (j = 0; j < D; ++j) out[j] /= norm;
    }
}

// Features of a packed image (see `codec.py`) apart; returns the largest word. `step` is pixels per grid step.
std::int64_t delf_edge_unpack(const std::uint8_t *records, std::int64_t n, std::int64_t code_size, double step,
                              float *keypoints, std::uint16_t *words, std::uint8_t *codes) {
    std::int64_t most = -1;
    for (std::int64_t i = 0; i < n; ++i, records += 5 + code_size) {
        const unsigned x = records[0] | (records[1] & 15u) << 8, y = records[1] >> 4 | records[2] << 4;
        keypoints[2 * i] = static_cast<float>(x * step);
        keypoints[2 * i + 1] = static_cast<float>(y * step);
        words[i] = static_cast<std::uint16_t>(records[3] | records[4] << 8);
        most = std::max<std::int64_t>(most, words[i]);
        std::copy(records + 5, records + 5 + code_size, codes + i * code_size);
    }
    return most;
}

}  // extern "C"
