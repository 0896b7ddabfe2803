//! Methods that ask what no built-in method asks: tensors and changes by
//! target, constant offsets, shared and further starts, linear combinations,
//! several statistics at once, options of every kind.

use rondo_methods::init::base_factors::{self, LU_LEFT, LU_PIVOTS, LU_RIGHT, SLICE_COLUMNS, SLICE_CROSS, SLICE_ROWS};
use rondo_methods::init::base_svd::{S, TAIL_S, TAIL_U, TAIL_V, U, V};
use rondo_methods::{
    At, BaseFactors, Delta, DpSupport, Exactness, LawKind, Method, MethodConfig, MethodError, Native, OffsetBy,
    OptionKind, OptionSpec, Origin, Registry, Role, Start, Statistic, Statistics, Tensor, TensorSet, TensorSpec,
    Travel, WarmUp,
};

/// Adds them all.
pub fn register(registry: &mut Registry) {
    registry.register(Box::new(Tiled)).unwrap();
    registry.register(Box::new(Woven)).unwrap();
    registry.register(Box::new(Shifted)).unwrap();
}

/// dW = D^T.E with a tiling E; where a target has more than six inputs, or without `tiles`, E is
/// drawn instead, and all targets share it.
pub struct Tiled;

impl Tiled {
    fn is_tiled(config: &MethodConfig, at: At<'_>) -> bool {
        config.toggle("tiles") == Some(true) && at.target.inp <= 6
    }
}

impl Method for Tiled {
    fn id(&self) -> &str {
        "tiled"
    }
    fn title(&self) -> &str {
        "a trained factor before a tiling"
    }
    fn paper(&self) -> &str {
        "none"
    }
    fn options(&self) -> &[OptionSpec] {
        &[
            OptionSpec { name: "tiles", kind: OptionKind::Toggle, default: Some("true"), help: "tile small targets" },
            OptionSpec { name: "start", kind: OptionKind::NonNegative, default: Some("0.0"), help: "start of D" },
        ]
    }
    fn mixed_ranks(&self, _config: &MethodConfig) -> bool {
        true
    }
    fn layout(&self, config: &MethodConfig, at: At<'_>) -> Vec<TensorSpec> {
        let rank = config.rank;
        let start = Start::Constant { value: config.number("start").unwrap_or(0.0) };
        let shape = [rank, at.target.inp];
        let inner = match Self::is_tiled(config, at) {
            true => TensorSpec::frozen("tile", &shape, Start::Tile { period: rank }),
            false => TensorSpec::frozen("drawn", &shape, Start::SeededNormal { std: 0.5 }).shared_as("drawn"),
        };
        let outer = TensorSpec::trained("d", &[rank, at.target.out], Travel::Both, start);
        vec![outer.with_block(&[at.rank, at.target.out]), inner]
    }
    fn starts_at_base(&self, config: &MethodConfig) -> bool {
        config.number("start") == Some(0.0)
    }
    fn law(&self, _config: &MethodConfig) -> LawKind {
        LawKind::Mean
    }
    fn delta(&self, config: &MethodConfig, at: At<'_>) -> Delta {
        let inner = if Self::is_tiled(config, at) { "tile" } else { "drawn" };
        Delta::Product(vec![Delta::mat("d").transposed(), Delta::mat(inner)]).scaled(config.scale())
    }
    fn exactness(&self, _config: &MethodConfig, _round: u32) -> Exactness {
        Exactness::Exact
    }
    fn dp_support(&self, _config: &MethodConfig) -> DpSupport {
        DpSupport::Central { released: vec!["d".into()] }
    }
    fn native(&self, config: &MethodConfig) -> Result<Native, String> {
        if config.alpha != config.rank as f64 {
            return Err("the type has no scale; leave alpha out, or use --format peft".into());
        }
        let settings = [("r".to_owned(), config.rank.into())].into_iter().collect();
        Ok(Native { peft_type: "TILED", settings, tensors: vec![("tiled_d", "d")], offset: OffsetBy::Nobody })
    }
}

/// dW = comb(beta, basis).A, where all targets slice one
/// basis; as many matrices as the `levels` add up to.
pub struct Woven;

impl Method for Woven {
    fn id(&self) -> &str {
        "woven"
    }
    fn title(&self) -> &str {
        "trained weights of random matrices"
    }
    fn paper(&self) -> &str {
        "none"
    }
    fn options(&self) -> &[OptionSpec] {
        &[OptionSpec {
            name: "levels",
            kind: OptionKind::Counts { min: 1, max: 4 },
            default: Some("[2, 3]"),
            help: "how many matrices, in groups",
        }]
    }
    fn layout(&self, config: &MethodConfig, at: At<'_>) -> Vec<TensorSpec> {
        let count = config.counts("levels").unwrap_or(&[]).iter().sum::<u64>() as usize;
        let basis = [count, at.target.out, at.rank];
        vec![
            TensorSpec::trained("beta", &[count], Travel::Both, Start::Zero),
            TensorSpec::frozen("basis", &basis, Start::SeededNormal { std: 1.0 }).shared_as("basis"),
            TensorSpec::frozen("a", &[at.rank, at.target.inp], Start::SeededUniform { bound: 0.5 }).shared_as("a"),
        ]
    }
    fn law(&self, _config: &MethodConfig) -> LawKind {
        LawKind::Mean
    }
    fn delta(&self, config: &MethodConfig, _at: At<'_>) -> Delta {
        Delta::Product(vec![Delta::comb("beta", "basis"), Delta::mat("a")]).scaled(config.scale())
    }
    fn exactness(&self, _config: &MethodConfig, _round: u32) -> Exactness {
        Exactness::Exact
    }
    fn dp_support(&self, _config: &MethodConfig) -> DpSupport {
        DpSupport::Central { released: vec!["beta".into()] }
    }
}

/// dW = L.M.R - L.M0.R with factors L, M0 and R of the base: M is trained from
/// M0 on, and the rest is a constant offset. A second statistic is summed over
/// the clients, and shared out among all targets.
pub struct Shifted;

impl Shifted {
    fn factors(config: &MethodConfig) -> BaseFactors {
        match config.text("factors") {
            Some("tail") => BaseFactors::SvdTail,
            Some("lu") => BaseFactors::Lu,
            Some("slice") => BaseFactors::Slice,
            _ => BaseFactors::SvdHead,
        }
    }

    fn names(config: &MethodConfig) -> [&'static str; 3] {
        match Self::factors(config) {
            BaseFactors::SvdHead => [U, S, V],
            BaseFactors::SvdTail => [TAIL_U, TAIL_S, TAIL_V],
            BaseFactors::Lu => [LU_LEFT, LU_PIVOTS, LU_RIGHT],
            BaseFactors::Slice => [SLICE_COLUMNS, SLICE_CROSS, SLICE_ROWS],
        }
    }

    fn change(config: &MethodConfig, middle: &str) -> Delta {
        let middle = match Self::factors(config) {
            BaseFactors::Slice => Delta::mat(middle),
            _ => Delta::Diag(middle.to_owned()),
        };
        Delta::Product(vec![Delta::mat("left"), middle, Delta::mat("right")])
    }
}

impl Method for Shifted {
    fn id(&self) -> &str {
        "shifted"
    }
    fn title(&self) -> &str {
        "factors of the base that are taken out of it"
    }
    fn paper(&self) -> &str {
        "none"
    }
    fn options(&self) -> &[OptionSpec] {
        &[
            OptionSpec {
                name: "factors",
                kind: OptionKind::Choice(&["head", "tail", "lu", "slice"]),
                default: Some("head"),
                help: "which factors",
            },
            OptionSpec { name: "kept", kind: OptionKind::Fraction, default: Some("0.5"), help: "share of the middle" },
            OptionSpec {
                name: "rest",
                kind: OptionKind::Names,
                default: Some("[]"),
                help: "targets that rest in even rounds",
            },
            OptionSpec { name: "turns", kind: OptionKind::Toggle, default: Some("false"), help: "bert rests at times" },
        ]
    }
    fn mixed_ranks(&self, _config: &MethodConfig) -> bool {
        true
    }
    fn layout(&self, config: &MethodConfig, at: At<'_>) -> Vec<TensorSpec> {
        let rank = config.rank;
        let dims = if Self::factors(config) == BaseFactors::Slice { 2 } else { 1 };
        let middle = vec![rank; dims];
        vec![
            TensorSpec::shipped("left", &[at.target.out, rank], Origin::Base),
            TensorSpec::shipped("right", &[rank, at.target.inp], Origin::Base),
            TensorSpec::shipped("m0", middle.as_slice(), Origin::Base),
            TensorSpec::shipped("share", &[1], Origin::WarmUp),
            TensorSpec::trained("m", middle.as_slice(), Travel::Both, Start::Artefact).with_block(&vec![at.rank; dims]),
        ]
    }
    fn trains_in(&self, config: &MethodConfig, at: At<'_>, _part: &str) -> bool {
        let rests = |name: &String| at.target.name.contains(name.as_str());
        let even = at.round.is_some_and(|round| round.is_multiple_of(2));
        let is_turn = config.toggle("turns") == Some(true) && at.client == Some("bert") && at.target.out > 6;
        !(is_turn || even && config.names("rest").unwrap_or(&[]).iter().any(rests))
    }
    fn server_steps(&self, config: &MethodConfig) -> Result<(), String> {
        let rests = config.names("rest").is_some_and(|names| !names.is_empty());
        if rests { Err("some targets rest, so the moments would be two rounds old".into()) } else { Ok(()) }
    }
    fn warm_up(&self, config: &MethodConfig, at: At<'_>) -> Vec<WarmUp> {
        let ones = TensorSpec::new(
            "ones",
            &[1, at.target.inp],
            Role::Frozen { from: Origin::Seed },
            Travel::Never,
            Start::Constant { value: 1.0 },
        );
        let rows = TensorSpec::trained("rows", &[at.target.out, 1], Travel::Up, Start::Zero);
        vec![
            base_factors::probe(Self::factors(config), at.target, config.rank),
            WarmUp {
                statistic: Statistic::Gradient,
                examples: 4,
                layout: vec![rows, ones],
                delta: Delta::product(&["rows", "ones"]),
                law: LawKind::Sum,
            },
        ]
    }
    fn finish_warm_up(
        &self,
        config: &MethodConfig,
        at: At<'_>,
        statistics: &Statistics<'_>,
    ) -> Result<TensorSet, MethodError> {
        let [left, middle, right] = Self::names(config);
        let own = statistics.of(at.target)?;
        let mut total = 0.0;
        for target in statistics.targets() {
            total += statistics.of(target)?["rows"].to_matrix().norm();
        }
        let kept = config.number("kept").unwrap_or(0.5);
        let mut start = own[middle].clone();
        start.data.iter_mut().for_each(|x| *x = (f64::from(*x) * kept) as f32);
        let share = own["rows"].to_matrix().norm() / total;
        Ok(TensorSet::from([
            ("left".to_owned(), own[left].clone()),
            ("right".to_owned(), own[right].clone()),
            ("m0".to_owned(), start.clone()),
            ("m".to_owned(), start),
            ("share".to_owned(), Tensor::from_vector(&[share])),
        ]))
    }
    fn law(&self, _config: &MethodConfig) -> LawKind {
        LawKind::Mean
    }
    fn delta(&self, config: &MethodConfig, _at: At<'_>) -> Delta {
        Self::change(config, "m")
    }
    fn offset(&self, config: &MethodConfig, _at: At<'_>) -> Option<Delta> {
        Some(Self::change(config, "m0").scaled(-1.0))
    }
    fn exactness(&self, _config: &MethodConfig, _round: u32) -> Exactness {
        Exactness::Exact
    }
    fn dp_support(&self, _config: &MethodConfig) -> DpSupport {
        DpSupport::LocalOnly("clients take turns".into())
    }
    fn native(&self, _config: &MethodConfig) -> Result<Native, String> {
        let settings = serde_json::Map::new();
        Ok(Native { peft_type: "SHIFTED", settings, tensors: vec![("m", "m")], offset: OffsetBy::Nobody })
    }
}
